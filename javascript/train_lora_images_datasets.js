// The dataset in work: chosen by name, made new or from a folder on the disk, renamed, duplicated, exported, deleted.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesDatasets = (() => {
    const page = window.trainLora;
    let field = null;
    let folder = null;
    let buttons = [];

    const current = () => field.options[field.selectedIndex]?.text || "";

    async function refresh() {
        if (!field) return;
        const answer = await page.api.get("datasets");
        if (!answer.ok) return;
        const wanted = [["", "New dataset"], ...answer.data.datasets.map(({id, name}) => [id, name])];
        field.replaceChildren(...wanted.map(([id, name]) => new Option(name, id)));
        if (page.images.id() && !wanted.some(([id]) => id === page.images.id())) await page.images.choose("");
        field.value = page.images.id();
        folder.hidden = !answer.data.folders;
        for (const {node} of buttons) node.hidden = !field.value;
    }

    async function send(method, rest, body) {
        const answer = await page.api.send(method, rest, body);
        page.images.problems(answer.problems);
        return answer;
    }

    async function openFolder() {
        const path = prompt("Folder on the disk; its files are not changed:");
        if (!path) return;
        const answer = await send("POST", "datasets", {folder: path});
        if (!answer.ok) return;
        await page.images.choose(answer.data.id);
        await refresh();
    }

    async function rename() {
        const name = prompt("Name of the dataset:", current());
        if (!name || name === current()) return;
        const answer = await send("PATCH", page.images.path(), {name});
        if (answer.ok) await refresh();
    }

    async function duplicate() {
        const answer = await send("POST", page.images.path("/duplicate"));
        if (!answer.ok) return;
        await page.images.choose(answer.data.id);
        await refresh();
    }

    async function remove() {
        if (!confirm(`Delete the dataset ${current()} with its images and captions? Files of a folder on the disk stay.`)) return;
        const answer = await send("DELETE", page.images.path());
        if (!answer.ok) return;
        await page.images.choose("");
        await refresh();
    }

    async function download() {
        const answer = await send("POST", page.images.path("/export"));
        if (!answer.ok) return;
        const link = page.dom.element("a");
        link.href = page.api.url(answer.data.path);
        link.download = answer.data.name;
        link.click();
    }

    async function writeCaptions() {
        const plan = await send("POST", page.images.path("/write"), {preview: true});
        if (!plan.ok || !confirm(plan.data.question)) return;
        const answer = await send("POST", page.images.path("/write"));
        if (answer.ok) page.imagesPanel.say(answer.data.done);
    }

    function build() {
        const row = page.dom.element("div", "train-lora-row-buttons train-lora-datasets");
        field = page.dom.element("select");
        field.setAttribute("aria-label", "Dataset");
        field.addEventListener("change", async () => {
            await page.images.choose(field.value);
            await refresh();
        });
        const make = (text, press) => {
            const made = page.dom.button("train-lora-small", press);
            made.show(text);
            return made;
        };
        const open = make("Folder on the disk", openFolder);
        folder = open.node;
        buttons = [
            make("Rename", rename), make("Duplicate", duplicate), make("Export", download),
            make("Write captions to the folder", writeCaptions), make("Delete", remove),
        ];
        row.append(field, folder, ...buttons.map(({node}) => node));
        return row;
    }

    return {build, refresh};
})();
