// Captions of all or of the filtered images: find and replace, add, remove or move a tag; previewed, then one change to undo.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesCaptions = (() => {
    const page = window.trainLora;
    const ACTIONS = [
        ["replace", "Find and replace"], ["add", "Add a tag"], ["remove", "Remove a tag"], ["move", "Move a tag"],
        ["unique", "Remove repeated tags"],
    ];
    const WHERE = [["front", "In front"], ["end", "At the end"]];
    let nodes = null;
    let asked = null;
    let previewed = "";

    function input(label, className) {
        const node = page.dom.element("input", className);
        node.type = "text";
        node.setAttribute("aria-label", label);
        node.placeholder = label;
        return node;
    }

    function select(label, choices) {
        const node = page.dom.element("select");
        node.setAttribute("aria-label", label);
        for (const [value, text] of choices) node.append(new Option(text, value));
        return node;
    }

    function request() {
        const {action, find, put, where} = nodes;
        return {
            action: action.value, find: find.value, put: put.value, where: where.value, show: asked?.show || "all",
            text: asked?.text || "",
        };
    }

    function fields() {
        const action = nodes.action.value;
        nodes.find.hidden = action === "unique" || action === "add";
        nodes.put.hidden = action !== "replace" && action !== "add";
        nodes.where.hidden = action !== "add" && action !== "move";
        nodes.find.placeholder = action === "replace" ? "Find" : "Tag";
        nodes.put.placeholder = action === "replace" ? "Replace with" : "Tag";
        forget();
    }

    function forget() {
        previewed = "";
        nodes.apply.node.disabled = true;
        nodes.changes.show([]);
        page.dom.setText(nodes.words, "");
    }

    async function preview() {
        const body = {...request(), preview: true};
        const answer = await page.api.send("POST", page.images.path("/captions"), body);
        page.images.problems(answer.problems);
        if (!answer.ok) return;
        previewed = JSON.stringify(request());
        const {count, changes} = answer.data;
        page.dom.setText(nodes.words, count ? `${count} captions change:` : "No caption changes.");
        nodes.changes.show(changes.map(({name, before, after}) => `${name}: ${before || "—"} → ${after || "—"}`));
        nodes.apply.node.disabled = !count;
    }

    async function apply() {
        if (previewed !== JSON.stringify(request())) {
            await preview();
            return;
        }
        const answer = await page.images.change("POST", "/captions", request());
        if (!answer.ok) return;
        forget();
        page.imagesPanel.say(`${answer.data.count} captions changed`);
    }

    function build() {
        const {element} = page.dom;
        const node = element("details", "train-lora-caption-tools");
        const row = element("div", "train-lora-row-buttons");
        const check = page.dom.button("train-lora-small", preview, {again: true});
        check.show("Preview");
        nodes = {
            action: select("What to do", ACTIONS), find: input("Find"), put: input("Replace with"), where: select("Where", WHERE),
            apply: page.dom.button("train-lora-small", apply), words: element("p", "train-lora-phase"),
            changes: page.dom.list("train-lora-changes"), tags: element("div", "train-lora-tags"),
        };
        nodes.apply.show("Apply");
        nodes.words.setAttribute("role", "status");
        nodes.action.addEventListener("change", fields);
        for (const field of [nodes.find, nodes.put, nodes.where]) field.addEventListener("input", forget);
        row.append(nodes.action, nodes.find, nodes.put, nodes.where, check.node, nodes.apply.node);
        node.append(element("summary", "", "Captions and tags"), row, nodes.words, nodes.changes.node, nodes.tags);
        fields();
        return node;
    }

    const tagButtons = () => page.dom.keyed(({tag}) => tag, ({tag}) => {
        const made = page.dom.button("train-lora-small", () => page.images.look({text: tag}), {again: true});
        return {node: made.node, show: ({count}) => made.show(`${tag} ${count}`)};
    });
    const tags = tagButtons();

    // Shows the tags of the dataset; a click filters by one.
    function show(data, look) {
        asked = look;
        page.dom.arrange(nodes.tags, tags(data.tags));
    }

    return {build, show};
})();
