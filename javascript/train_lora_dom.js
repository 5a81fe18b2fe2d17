// Views `{node, show, needed}` that keep nodes: a node is created once, `show` sets only what changed of it, and it is neither
// recreated nor moved unless necessary. `needed`, if set, says whether there is something to show.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.dom = (() => {
    const page = window.trainLora;
    const SVG = "http://www.w3.org/2000/svg";
    const SPOKEN = ["aria-label", "aria-valuetext", "title", "placeholder"]; // attributes that are text for people
    const OF_SVG = ["svg", "polyline", "text", "g", "circle", "line"];
    const given = new WeakMap(); // the text last set on a node; the webui's translation may have replaced it

    const find = (selector) => gradioApp().querySelector(selector);

    function setText(node, text) {
        if (given.get(node) === text) return;
        given.set(node, text);
        node.textContent = page.words.exact(text);
    }

    function setAttribute(node, name, value) {
        const told = SPOKEN.includes(name) && typeof value === "string" ? page.words.exact(value) : value;
        if (told === null) node.removeAttribute(name);
        else if (node.getAttribute(name) !== String(told)) node.setAttribute(name, told);
    }

    // Makes `nodes` the children of `parent`. The focused one is not moved, since moving loses the focus.
    function arrange(parent, nodes) {
        const wanted = new Set(nodes);
        for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
        const active = parent.getRootNode().activeElement;
        const still = nodes.findIndex((node) => node.parentNode === parent && node.contains(active));
        nodes.forEach((node, place) => {
            const there = parent.childNodes[place];
            if (node === there) return;
            if (place < still) nodes[still].before(node);
            else if (place === still) while (parent.childNodes[place] !== node) parent.append(parent.childNodes[place]);
            else parent.insertBefore(node, there || null);
        });
    }

    // Shows those of `parts` that are needed; their nodes.
    function shownParts(parts, shown) {
        const needed = parts.filter((part) => !part.needed || part.needed(shown));
        for (const part of needed) part.show(shown);
        return needed.map((part) => part.node);
    }

    // A view of an element. `text`, or the needed `parts` and a view per item of `items`, and `attributes` follow from what is shown.
    // The view of an item is made once per key, and kept as long as its key.
    function view(tag, className, {text, attributes = () => ({}), parts = [], items = () => [], make, key = (_, place) => place, needed}) {
        const node = OF_SVG.includes(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
        if (className) node.setAttribute("class", className);
        let made = new Map();

        function itemNodes(shown) {
            made = new Map(items(shown).map((item, place) => {
                const name = key(item, place);
                const itemView = made.get(name) || make(item);
                itemView.show(item);
                return [name, itemView];
            }));
            return [...made.values()].map((itemView) => itemView.node);
        }

        const one = {
            node,
            needed,
            shown: null, // last
            show(shown) {
                one.shown = shown;
                for (const [name, value] of Object.entries(attributes(shown))) setAttribute(node, name, value);
                if (text) setText(node, text(shown));
                else arrange(node, [...shownParts(parts, shown), ...itemNodes(shown)]);
            },
        };
        return one;
    }

    // A view of a text.
    const line = (tag, className, text, needed) => view(tag, className, {text, needed});

    // Messages; existing ones stay.
    function list(className, items) {
        return view("ul", className, {items, make: () => line("li", "", (text) => text), needed: (shown) => items(shown).length > 0});
    }

    // A button labelled with its action and its job; `press` gets what it shows. The second of a double click is dropped unless
    // `again`: another row may be there by then. While `unfit` it does nothing; it keeps the focus, which a disabled one would lose.
    function button(className, {text, job = () => null, attributes = () => ({}), press, again = false, unfit = () => false, needed}) {
        const label = (shown) => (job(shown) ? `${page.words.exact(text(shown))}: ${job(shown)}` : null);
        const one = view("button", className, {text, needed, attributes: (shown) => ({
            type: "button", "aria-label": label(shown), "aria-disabled": unfit(shown) ? "true" : null, ...attributes(shown),
        })});
        one.node.addEventListener("click", (event) => {
            if ((again || event.detail <= 1) && !unfit(one.shown)) press(one.shown);
        });
        return one;
    }

    // Shows the needed parts in a panel of the tab. If that removes or disables the focused button, the next one that can have the
    // focus gets it.
    function fill(panel, parts, shown) {
        const root = panel.getRootNode();
        const active = root.activeElement;
        const before = [...panel.querySelectorAll("button")];
        const place = before.indexOf(active);
        arrange(panel, shownParts(parts, shown));
        if (place < 0 || (active.isConnected && !active.disabled)) return;
        for (const node of [...before.slice(place + 1), ...before.slice(0, place).reverse()]) {
            node.focus({preventScroll: true}); // which a hidden or disabled one ignores
            if (root.activeElement === node) return;
        }
    }

    // Calls back when something below a node changes.
    function watch(selector, changed, more = {}) {
        const what = {childList: true, subtree: true, characterData: true, ...more};
        new MutationObserver(changed).observe(find(selector), what);
    }

    return {find, setText, setAttribute, view, line, list, button, fill, watch};
})();
