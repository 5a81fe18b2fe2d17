// Captions of all or of the filtered images: find and replace, add, remove or move a tag; previewed, then one change to undo.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesCaptions = (() => {
    const page = window.trainLora;
    const ACTIONS = {
        replace: "Find and replace", add: "Add a tag", remove: "Remove a tag", move: "Move a tag", unique: "Remove repeated tags",
    };
    const WHERE = {front: "In front", end: "At the end"};
    const USES = { // action -> the fields that it needs
        find: ["replace", "remove", "move"], put: ["replace", "add"], where: ["add", "move"],
    };
    const wish = {action: "replace", find: "", put: "", where: "front"};
    let preview = null; // {count, changes} of `previewed`
    let previewed = "";

    const request = () => ({...wish, ...page.images.those()});

    function set(name, value) {
        wish[name] = value;
        preview = null;
        page.imagesPanel.show(page.images.data(), page.images.asked());
    }

    async function look() {
        const body = request();
        const answer = await page.api.send("POST", page.images.path("/captions"), {...body, preview: true});
        page.images.problems(answer.problems);
        preview = answer.ok ? answer.data : null;
        previewed = JSON.stringify(body);
        page.imagesPanel.show(page.images.data(), page.images.asked());
    }

    async function apply() {
        if (previewed !== JSON.stringify(request())) {
            await look();
            return;
        }
        preview = null;
        const answer = await page.images.change("POST", "/captions", request());
        if (answer.ok) page.imagesPanel.say(page.words.say("{count} captions changed", answer.data));
    }

    function choice(name, label, choices) {
        const made = page.imagesPanel.control("select", {"aria-label": label}, "change", (node) => set(name, node.value));
        made.node.append(...Object.entries(choices).map(([value, text]) => new Option(text, value)));
        return {...made, needed: () => !USES[name] || USES[name].includes(wish.action)};
    }

    function field(name, label) {
        const made = page.imagesPanel.control("input", {type: "text"}, "input", (node) => set(name, node.value));
        return {
            node: made.node,
            needed: () => USES[name].includes(wish.action),
            show() {
                for (const attribute of ["aria-label", "placeholder"]) page.dom.setAttribute(made.node, attribute, label());
            },
        };
    }

    function build() {
        const {view, line, list, button} = page.dom;
        const isText = () => wish.action === "replace";
        const row = view("div", "train-lora-row-buttons", {parts: [
            choice("action", "What to do", ACTIONS), field("find", () => (isText() ? "Find" : "Tag")),
            field("put", () => (isText() ? "Replace with" : "Tag")), choice("where", "Where", WHERE),
            button("train-lora-small", {text: () => "Preview", press: look, again: true}),
            button("train-lora-small", {text: () => "Apply", press: apply, unfit: () => !preview?.count}),
        ]});
        const words = ({count}) => (count ? page.words.say("{count} captions change:", {count}) : "No caption changes.");
        const changes = ({name, before, after}) => `${name}: ${before || "—"} → ${after || "—"}`;
        const tags = view("div", "train-lora-row-buttons", {
            items: ({data}) => data.tags, key: ({tag}) => tag,
            make: () => button("train-lora-small", {
                text: ({tag, count}) => `${tag} ${count}`, again: true, press: ({tag}) => page.images.look({text: tag}),
            }),
        });
        return view("details", "train-lora-caption-tools", {parts: [
            line("summary", "", () => "Captions and tags"), row,
            view("p", "train-lora-phase", {text: () => (preview ? words(preview) : ""), attributes: () => ({role: "status"})}),
            list("train-lora-note", () => (preview ? preview.changes.map(changes) : [])), tags,
        ]});
    }

    return {build};
})();
