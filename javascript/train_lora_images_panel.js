// The Images room on the page: where files arrive, what is shown of the dataset, its images, and its pages.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesPanel = (() => {
    const page = window.trainLora;
    const FILTERS = [
        ["all", "All"], ["no_caption", "No caption"], ["problem", "Problem"], ["duplicate", "Duplicate"], ["small", "Small"],
        ["left_out", "Left out"],
    ];
    const SORTS = [["name", "Name"], ["size", "Size"], ["tokens", "Tokens"]];
    const TYPED_MS = 300;
    const EMPTY = "Drop images, folders or a zip here, or paste an image.";

    let nodes = null;

    function chooser(text, folder) {
        const input = page.dom.element("input");
        input.type = "file";
        input.multiple = true;
        input.hidden = true;
        if (folder) input.webkitdirectory = true;
        input.addEventListener("change", () => {
            page.imagesArrivals.send([...input.files]);
            input.value = "";
        });
        const open = page.dom.button("train-lora-small", () => input.click());
        open.show(text);
        return [open.node, input];
    }

    function filterButtons() {
        const row = page.dom.element("div", "train-lora-row-buttons");
        row.setAttribute("role", "group");
        row.setAttribute("aria-label", "Show");
        const buttons = FILTERS.map(([name, text]) => {
            const made = page.dom.button("train-lora-small", () => page.images.look({show: name}), {again: true});
            row.append(made.node);
            return {name, text, ...made};
        });
        return {
            node: row,
            show(counts, chosen) {
                for (const {name, text, node, show: label} of buttons) {
                    label(`${text} ${counts[name]}`);
                    node.hidden = !counts[name] && name !== "all" && name !== chosen;
                    node.setAttribute("aria-pressed", String(name === chosen));
                }
            },
        };
    }

    function search() {
        const field = page.dom.element("input", "train-lora-search");
        field.type = "search";
        field.placeholder = "Find a text or tag";
        field.setAttribute("aria-label", "Find a text or tag");
        let timer = null;
        field.addEventListener("input", () => {
            clearTimeout(timer);
            timer = setTimeout(() => page.images.look({text: field.value}), TYPED_MS);
        });
        return field;
    }

    function sorting() {
        const field = page.dom.element("select", "train-lora-sort");
        field.setAttribute("aria-label", "Sort by");
        for (const [value, text] of SORTS) field.append(new Option(text, value));
        field.addEventListener("change", () => page.images.look({sort: field.value}));
        return field;
    }

    function pager() {
        const row = page.dom.element("div", "train-lora-row-buttons");
        const back = page.dom.button("train-lora-small", () => turn(-1), {again: true});
        const words = page.dom.element("span");
        const on = page.dom.button("train-lora-small", () => turn(1), {again: true});
        back.show("Previous");
        on.show("Next");
        row.append(back.node, words, on.node);
        const turn = (by) => page.images.look({page: page.images.data().page + by});
        return {
            node: row,
            show({page: at, pages}) {
                row.hidden = pages < 2;
                page.dom.setText(words, `Page ${at} of ${pages}`);
                back.node.disabled = at <= 1;
                on.node.disabled = at >= pages;
            },
        };
    }

    function build(room) {
        const {element} = page.dom;
        const drop = element("div", "train-lora-drop");
        const hint = element("span", "", EMPTY);
        drop.append(hint, ...chooser("Choose images", false), ...chooser("Choose a folder", true));
        const arrival = element("p", "train-lora-phase");
        const told = page.dom.list("train-lora-problem");
        const spoken = element("div", "train-lora-spoken");
        for (const node of [told.node, spoken]) node.setAttribute("role", "status");
        const filters = filterButtons();
        const tools = element("div", "train-lora-tools");
        const undo = page.dom.button("train-lora-small", undoLast, {again: true});
        const duplicates = page.dom.button("train-lora-small", () => page.images.change("POST", "/duplicates"));
        tools.append(search(), sorting(), undo.node, duplicates.node);
        const notes = page.dom.list("train-lora-note");
        const grid = element("div", "train-lora-images");
        const cards = page.dom.keyed(({id}) => id, page.imagesCard.make);
        const pages = pager();
        const content = element("div", "train-lora-dataset");
        content.append(filters.node, tools, page.imagesCaptions.build(), notes.node, grid, pages.node);
        room.append(page.imagesDatasets.build(), drop, arrival, told.node, spoken, content);
        page.imagesArrivals.watch(room);
        return {hint, arrival, told, spoken, filters, undo, duplicates, notes, grid, cards, pages, content};
    }

    async function undoLast() {
        const answer = await page.images.change("POST", "/undo");
        if (answer.ok) say(answer.data.undone ? `Undone: ${answer.data.undone}` : "Nothing to undo");
    }

    // For screen readers.
    function say(text) {
        page.dom.setText(nodes.spoken, text);
    }

    function show(data, asked) {
        if (!nodes) return;
        nodes.content.hidden = !data;
        page.dom.setText(nodes.hint, data?.counts.all ? "Drop more here, or paste an image." : EMPTY);
        if (!data) {
            page.dom.arrange(nodes.grid, nodes.cards([]));
            return;
        }
        nodes.filters.show(data.counts, asked.show);
        nodes.undo.show(data.undo ? `Undo: ${data.undo}` : "Undo");
        nodes.undo.node.disabled = !data.undo;
        nodes.duplicates.show(`Leave out duplicates (${data.duplicates})`);
        nodes.duplicates.node.hidden = !data.duplicates;
        nodes.notes.show(data.problems);
        page.dom.keepingFocus(nodes.grid, () => page.dom.arrange(nodes.grid, nodes.cards(data.images)));
        nodes.pages.show(data);
        const {done, total} = data.looked;
        if (!page.imagesArrivals.isArriving()) arriving(done < total ? `Looked at ${done} of ${total} images` : "");
        page.imagesCaptions.show(data, asked);
    }

    function arriving(text) {
        if (nodes) page.dom.setText(nodes.arrival, text);
    }

    function problems(texts) {
        if (nodes) nodes.told.show(texts);
    }

    onUiLoaded(() => {
        nodes = build(page.dom.find("#train_lora_images"));
        show(null, {show: "all"});
    });

    return {arriving, problems, say, show};
})();
