// The dataset in work: chosen by name, made new or from a folder on the disk, renamed, duplicated, exported, deleted.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesDatasets = (() => {
    const page = window.trainLora;
    const DELETE = "Delete the dataset {name} with its images and captions? Files of a folder on the disk stay.";
    let known = {datasets: [], folders: false};
    let field = null;

    const current = (kind) => known.datasets.find(({id}) => id === page.images.id(kind))?.name || "";

    async function refresh() {
        const answer = await page.api.get("datasets");
        if (!answer.ok) return;
        known = answer.data;
        for (const kind of ["images", "reg"]) if (page.images.id(kind) && !current(kind)) await page.images.choose("", kind);
        fillChoices();
        page.imagesPanel.show(page.images.data(), page.images.asked());
    }

    function fillChoices() {
        if (!field) return;
        const wanted = [["", "New dataset"], ...known.datasets.map(({id, name}) => [id, name])];
        field.replaceChildren(...wanted.map(([id, name]) => new Option(name, id)));
        field.value = page.images.id();
    }

    async function send(method, path, body) {
        const answer = await page.api.send(method, path, body);
        page.images.problems(answer.problems);
        return answer;
    }

    async function open(answer) {
        if (!answer.ok) return;
        await page.images.choose(answer.data.id);
        await refresh();
    }

    async function openFolder() {
        const path = prompt(page.words.say("Folder on the disk; its files are not changed:"));
        if (path) await open(await send("POST", "datasets", {folder: path}));
    }

    async function rename() {
        const name = prompt(page.words.say("Name of the dataset:"), current());
        if (name && name !== current() && (await send("PATCH", page.images.path(), {name})).ok) await refresh();
    }

    async function remove() {
        if (!confirm(page.words.say(DELETE, {name: current()}))) return;
        if (!(await send("DELETE", page.images.path())).ok) return;
        await page.images.choose("");
        await refresh();
    }

    // What was done all the same, though not with all.
    const told = ({problems}) => page.images.problems(problems.map((text) => ({text})));

    async function download() {
        const answer = await send("POST", page.images.path("/export"), {settings: page.images.those().settings});
        if (!answer.ok) return;
        told(answer.data);
        const link = Object.assign(document.createElement("a"), {href: page.api.url(answer.data.path), download: answer.data.name});
        link.click();
    }

    async function writeCaptions() {
        const plan = await send("POST", page.images.path("/write"), {preview: true, settings: page.images.those().settings});
        if (!plan.ok || !confirm(page.words.say("Write {count} caption files to {folder}?", plan.data))) return;
        const answer = await send("POST", page.images.path("/write"), {settings: page.images.those().settings});
        if (!answer.ok) return;
        told(answer.data);
        page.imagesPanel.say(page.words.say("{count} caption files written", answer.data));
    }

    const BUTTONS = [
        ["Folder on the disk", openFolder, () => known.folders],
        ["Rename", rename, () => current()],
        ["Duplicate", async () => open(await send("POST", page.images.path("/duplicate"))), () => current()],
        ["Export", download, () => current()],
        ["Write captions to the folder", writeCaptions, ({data}) => data?.folder],
        ["Delete", remove, () => current()],
    ];

    function build() {
        const choice = page.imagesPanel.control("select", {"aria-label": "Dataset"}, "change", async (node) => {
            await page.images.choose(node.value);
            await refresh();
        });
        field = choice.node;
        fillChoices();
        const buttons = BUTTONS.map(([text, press, needed]) => page.dom.button("train-lora-small", {text: () => text, press, needed}));
        return page.dom.view("div", "train-lora-row-buttons", {parts: [choice, ...buttons]});
    }

    return {build, current, refresh};
})();
