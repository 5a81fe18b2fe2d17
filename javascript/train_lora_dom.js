// Updates that keep nodes: only changed texts are set, and nodes are neither recreated nor moved unless necessary.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.dom = (() => {
    const SVG = "http://www.w3.org/2000/svg";
    const given = new WeakMap(); // the text last set on a node; the webui's translation may have replaced it

    function find(selector) {
        return gradioApp().querySelector(selector);
    }

    function element(tag, className, text) {
        const node = document.createElement(tag);
        if (className) node.className = className;
        if (text !== undefined) setText(node, text);
        return node;
    }

    function svg(tag, attributes) {
        const node = document.createElementNS(SVG, tag);
        for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
        return node;
    }

    function setText(node, text) {
        if (given.get(node) === text) return;
        given.set(node, text);
        node.textContent = text;
    }

    function setAttribute(node, name, value) {
        if (value === null) node.removeAttribute(name);
        else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
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

    // One node per item, by views `{node, show}`: a view is created once per key, shows its item, and stays as long as its key.
    function keyed(key, make) {
        let views = new Map();
        return (items) => {
            const next = new Map();
            items.forEach((item, place) => {
                const name = key(item, place);
                const view = views.get(name) || make(item);
                view.show(item);
                next.set(name, view);
            });
            views = next;
            return [...views.values()].map((view) => view.node);
        };
    }

    // Messages; existing ones stay.
    function list(className) {
        const node = element("ul", className);
        const lines = keyed((_, place) => place, () => {
            const line = element("li");
            return {node: line, show: (text) => setText(line, text)};
        });
        return {node, show: (texts) => arrange(node, lines(texts))};
    }

    // A button labelled with its action and its job. The second of a double click is dropped: another row may be there by then.
    function button(className, press, {again = false} = {}) {
        const node = element("button", className);
        node.type = "button";
        node.addEventListener("click", (event) => {
            if (again || event.detail <= 1) press();
        });
        return {
            node,
            show(text, job) {
                setText(node, text);
                setAttribute(node, "aria-label", job ? `${text}: ${job}` : null);
            },
        };
    }

    // If `change` removes the focused button, the next remaining one gets the focus.
    function keepingFocus(panel, change) {
        const active = panel.getRootNode().activeElement;
        const before = [...panel.querySelectorAll("button")];
        const place = before.indexOf(active);
        change();
        if (place < 0 || active.isConnected) return;
        const next = [...before.slice(place), ...before.slice(0, place).reverse()].find((node) => node.isConnected);
        if (next) next.focus({preventScroll: true});
    }

    return {find, element, svg, setText, setAttribute, arrange, keyed, list, button, keepingFocus};
})();
