// The Images room on the page: where files arrive, what is shown of the dataset, its images, and its pages.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesPanel = (() => {
    const page = window.trainLora;
    const FILTERS = {
        all: "All", no_caption: "No caption", problem: "Problem", duplicate: "Duplicates", small: "Small", left_out: "Left out",
    };
    const SORTS = {name: "Name", size: "Size", tokens: "Tokens"};
    const TYPED_MS = 300;
    const EMPTY = "Drop images, folders or a zip here, or paste an image.";
    const MORE = "Drop more here, or paste an image.";

    let parts = null;
    const told = {arriving: "", problems: [], spoken: ""};
    let folders = null; // the field of folderChoice

    // A control that is made once, and whose value the user alone changes.
    function control(tag, attributes, kind, changed) {
        const node = document.createElement(tag);
        for (const [name, value] of Object.entries(attributes)) page.dom.setAttribute(node, name, value);
        node.addEventListener(kind, () => changed(node));
        return {node, show() {}};
    }

    function chooser(text, attributes) {
        const input = control("input", {type: "file", multiple: "", hidden: "", ...attributes}, "change", (node) => {
            page.imagesArrivals.send([...node.files]);
            node.value = "";
        });
        return [page.dom.button("train-lora-small", {text: () => text, press: () => input.node.click()}), input];
    }

    // The numbered folder that new images go to, where the dataset has several.
    function folderChoice() {
        const {node} = control("select", {"aria-label": "Folder for new images"}, "change", () => {});
        folders = node;
        return {
            node,
            needed: ({data}) => data?.folders.length > 1,
            show({data}) {
                if (data.folders.join("/") === [...node.options].map(({value}) => value).join("/")) return;
                const chosen = node.value;
                node.replaceChildren(...data.folders.map((name) => new Option(name, name)));
                if (data.folders.includes(chosen)) node.value = chosen;
            },
        };
    }

    const filters = () => page.dom.view("div", "train-lora-row-buttons", {
        attributes: () => ({role: "group", "aria-label": "Show"}),
        items: ({data, asked}) => Object.entries(FILTERS)
            .map(([name, text]) => ({name, text, count: data.counts[name], chosen: asked.show === name}))
            .filter(({name, count, chosen}) => count || chosen || name === "all"),
        key: ({name}) => name,
        make: () => page.dom.button("train-lora-small", {
            text: ({text, count}) => `${page.words.say(text)} ${count}`, again: true, press: ({name}) => page.images.look({show: name}),
            attributes: ({chosen}) => ({"aria-pressed": String(chosen)}),
        }),
    });

    function search() {
        let timer = null;
        const text = "Find a text or tag";
        return control("input", {type: "search", class: "train-lora-search", placeholder: text, "aria-label": text}, "input", (node) => {
            clearTimeout(timer);
            timer = setTimeout(() => page.images.look({text: node.value}), TYPED_MS);
        });
    }

    function sorting() {
        const made = control("select", {"aria-label": "Sort by"}, "change", (node) => page.images.look({sort: node.value}));
        made.node.append(...Object.entries(SORTS).map(([value, text]) => new Option(text, value)));
        return made;
    }

    const which = (data) => page.words.say("Page {page} of {pages}", data);

    function pager() {
        const turn = (by) => {
            turning = true;
            page.images.look({page: page.images.data().page + by});
        };
        const button = (text, by, ends) => page.dom.button("train-lora-small", {
            text: () => text, again: true, press: () => turn(by), unfit: ({data}) => ends(data),
        });
        return page.dom.view("div", "train-lora-row-buttons", {
            needed: ({data}) => data.pages > 1, attributes: () => ({role: "group", "aria-label": "Pages"}),
            parts: [
                button("Previous", -1, ({page: at}) => at <= 1),
                page.dom.line("span", "", ({data}) => which(data)),
                button("Next", 1, ({page: at, pages}) => at >= pages),
            ],
        });
    }

    async function undoLast() {
        const {undo_number: number} = page.images.data();
        const answer = await page.images.change("POST", "/undo", {number});
        if (answer.ok) say(answer.data.undone ? page.words.say("Undone: {undone}", answer.data) : "Nothing to undo");
    }

    // Ctrl+Z, but for texts that are being typed.
    function undoByKey(event) {
        const isUndo = (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z";
        if (!isUndo || !shown.data?.undo || event.target.matches("input, textarea, select")) return;
        event.preventDefault();
        undoLast();
    }

    function tools() {
        const undo = page.dom.button("train-lora-small", {
            text: ({data}) => (data.undo ? page.words.say("Undo: {undo}", data) : "Undo"), again: true, press: undoLast,
            unfit: ({data}) => !data.undo,
        });
        const duplicates = page.dom.button("train-lora-small", {
            text: ({data}) => page.words.say("Leave out duplicates ({duplicates})", data), needed: ({data}) => data.duplicates > 0,
            press: () => page.images.change("POST", "/duplicates"),
        });
        return page.dom.view("div", "train-lora-row-buttons", {parts: [search(), sorting(), ...page.imagesCrops.build(), undo, duplicates]});
    }

    function content() {
        const {view, list} = page.dom;
        const grid = view("div", "train-lora-images", {
            items: ({data}) => data.images.map((image) => ({...image, dataset: data.id})),
            key: ({dataset, id}) => `${dataset} ${id}`, make: page.imagesCard.make,
        });
        return view("div", "train-lora-dataset", {
            needed: ({data}) => data !== null,
            parts: [
                filters(), tools(), page.imagesMasks.build(), page.imagesCaptions.build(), page.imagesCaptioners.build(),
                list("train-lora-note", ({data}) => data.problems), pager(), grid, pager(),
            ],
        });
    }

    function build() {
        const {view, line, list} = page.dom;
        const drop = view("div", "train-lora-drop", {parts: [
            line("span", "", ({data}) => (data?.counts.all ? MORE : EMPTY)),
            ...chooser("Choose images", {}), ...chooser("Choose a folder", {webkitdirectory: ""}), folderChoice(),
        ]});
        const status = (part) => view("div", "", {attributes: () => ({role: "status"}), parts: [part]});
        return page.imagesKinds.build([
            page.imagesDatasets.build(), drop,
            line("p", "train-lora-phase", () => told.arriving, () => told.arriving),
            status(list("train-lora-problem", () => told.problems)), status(line("span", "train-lora-spoken", () => told.spoken)), content(),
        ]);
    }

    let shown = {data: null, asked: {show: "all"}};
    let turning = false; // another page was asked for, and is said once it is there

    function show(data, asked) {
        if (turning && data && data !== shown.data) {
            turning = false;
            told.spoken = which(data);
        }
        shown = {data, asked};
        if (data && !page.imagesArrivals.isArriving()) {
            const {done, total} = data.looked;
            told.arriving = done < total ? page.words.say("Looked at {done} of {total} images", {done, total}) : "";
        }
        again();
    }

    function again() {
        if (parts) page.dom.fill(page.dom.find("#train_lora_images"), parts, shown);
    }

    function arriving(text) {
        told.arriving = text;
        again();
    }

    function problems(texts) {
        told.problems = texts;
        again();
    }

    // For new images; empty unless there is a choice.
    const folder = () => (shown.data?.folders.length > 1 ? folders.value : "");

    // For screen readers.
    function say(text) {
        told.spoken = text;
        again();
    }

    onUiLoaded(() => {
        parts = build();
        again();
        page.imagesArrivals.watch(page.dom.find("#train_lora_images"));
        page.dom.find("#train_lora_images").addEventListener("keydown", undoByKey);
    });

    return {arriving, control, folder, problems, say, show};
})();
