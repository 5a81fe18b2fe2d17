// Captions written by a captioner for all or for the filtered images: what it needs, its options, its progress, and Stop.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesCaptioners = (() => {
    const page = window.trainLora;
    const KEPT = "train_lora_captioner"; // in the browser: the captioner and its options, without secrets
    const POLL_MS = 700;
    const INPUTS = {flag: "checkbox", whole: "number", number: "number", secret: "password", text: "text"};

    let known = []; // the server's captioners
    let wish = {captioner: "", options: {}}; // options by captioner and name
    const secrets = {};
    let state = null; // the server's last answer on the dataset `of`
    let of = "";
    let problems = [];
    let timer = null;
    let newest = 0; // number of the last request

    const chosen = () => known.find(({id}) => id === wish.captioner) || null;
    const valuesOf = (id, {kind}) => (kind === "secret" ? secrets : wish.options)[id] || {};
    const currentOf = (id, option) => valuesOf(id, option)[option.name] ?? option.default;
    const again = () => page.imagesPanel.show(page.images.data(), page.images.asked());

    function restore() {
        try {
            const kept = JSON.parse(localStorage.getItem(KEPT));
            if (typeof kept?.captioner === "string" && kept.options && typeof kept.options === "object") wish = kept;
        } catch {
            localStorage.removeItem(KEPT); // not ours, or damaged
        }
    }

    function keep(id, option, value) {
        const values = option.kind === "secret" ? secrets : wish.options;
        values[id] = {...values[id], [option.name]: value};
        localStorage.setItem(KEPT, JSON.stringify(wish));
    }

    function choose(id) {
        wish.captioner = id;
        problems = [];
        localStorage.setItem(KEPT, JSON.stringify(wish));
        again();
    }

    // The captioners are asked for once the part is opened: what they need may have come meanwhile.
    async function load() {
        const answer = await page.api.get("captioners");
        problems = answer.problems.map(({text}) => text);
        if (answer.ok) {
            known = answer.data.captioners;
            if (!chosen()) wish.captioner = known[0]?.id || "";
        }
        again();
    }

    // The answer to a request on the captioning, which is shown unless a newer one was sent meanwhile.
    async function asked(request) {
        clearTimeout(timer);
        newest += 1;
        const number = newest;
        const answer = await request();
        if (number === newest) {
            if (answer.ok) took(answer.data);
            if (state?.running && !document.hidden) timer = setTimeout(poll, POLL_MS);
        }
        again();
        return answer;
    }

    function took(told) {
        const before = state;
        state = told;
        if (!before?.running) return;
        if (!state.running) {
            page.imagesPanel.say(state.ended || page.words.say("Captions written: {written}", state));
            page.report.formChanged();
        }
        if (!state.running || before.written !== state.written) page.images.refresh();
    }

    function poll() {
        const dataset = page.images.id();
        if (dataset !== of) {
            state = null;
            problems = [];
        }
        of = dataset;
        if (dataset) asked(() => page.api.get(page.images.path("/captioning")));
    }

    async function start() {
        const captioner = chosen();
        problems = [];
        const options = Object.fromEntries(captioner.options.map((option) => [option.name, currentOf(captioner.id, option)]));
        const body = {captioner: captioner.id, options, ...page.images.those()};
        if (await sent("POST", body)) page.imagesPanel.say(page.words.say("{name} writes captions", captioner));
    }

    async function sent(method, body) {
        const answer = await asked(() => page.api.send(method, page.images.path("/captioning"), body));
        problems = answer.problems.map(({text}) => text);
        again();
        return answer.ok;
    }

    const stop = () => sent("DELETE");

    const isNumber = ({kind}) => ["whole", "number"].includes(kind);

    function attributesOf(option) {
        const {kind, help, least, most} = option;
        return {
            ...(INPUTS[kind] ? {type: INPUTS[kind]} : {}),
            ...(isNumber(option) ? {min: least, max: most, step: kind === "whole" ? 1 : "any"} : {}),
            ...(kind === "secret" ? {autocomplete: "off"} : {}), ...(help ? {title: help} : {}),
        };
    }

    function inputOf(id, option) {
        const tag = {choice: "select", long: "textarea"}[option.kind] || "input";
        const property = option.kind === "flag" ? "checked" : "value";
        const made = page.imagesPanel.control(tag, attributesOf(option), "input", (node) => {
            const value = node[property];
            keep(id, option, isNumber(option) && value !== "" ? Number(value) : value);
        });
        if (option.choices) made.node.append(...option.choices.map(({value, label}) => new Option(label, value)));
        made.node[property] = currentOf(id, option);
        return made;
    }

    // A field of a captioner: its label, and a control that the user alone changes.
    function field({id, option}) {
        const {view, line} = page.dom;
        const label = line("span", "", () => option.label);
        const help = line("span", "train-lora-note", () => option.help, () => option.help);
        return view("label", `train-lora-field train-lora-field-${option.kind}`, {parts: [label, inputOf(id, option), help]});
    }

    function choice() {
        const made = page.imagesPanel.control("select", {"aria-label": "Captioner"}, "change", (node) => choose(node.value));
        let shown = "";
        made.show = () => {
            const names = known.map(({id, name}) => [id, name]);
            if (JSON.stringify(names) !== shown) made.node.replaceChildren(...names.map(([id, name]) => new Option(name, id)));
            shown = JSON.stringify(names);
            made.node.value = wish.captioner;
        };
        return made;
    }

    function words() {
        if (!state) return "";
        if (state.stopping) return "Stopping";
        if (state.running) return page.words.say("{done} of {total} images, captions written: {written}", state);
        if (state.ended) return state.ended;
        return state.captioner ? page.words.say("Captions written: {written}", state) : "";
    }

    function progress() {
        const {view, line, list} = page.dom;
        const running = () => Boolean(state?.running);
        const bar = view("progress", "train-lora-bar", {
            needed: running,
            attributes: () => ({max: state.total, value: state.done, "aria-label": "Images that are done"}),
        });
        const told = () => [...problems, ...(state?.problems || [])];
        const elsewhere = () => (state?.elsewhere ? page.words.say("Captions of the dataset {elsewhere} are being written now.", state) : "");
        return [
            bar, line("p", "train-lora-phase", words, () => words() !== ""),
            line("p", "train-lora-note", () => state.current, () => running() && state.current),
            line("p", "train-lora-note", elsewhere, () => elsewhere() !== ""), list("train-lora-problem", told),
        ];
    }

    function build() {
        const {view, line, button} = page.dom;
        const running = () => Boolean(state?.running);
        const needs = () => chosen()?.needs || "";
        const note = () => chosen()?.note || "";
        const fields = view("div", "train-lora-fields", {
            items: () => (chosen()?.options || []).map((option) => ({id: wish.captioner, option})),
            key: ({id, option}) => `${id}/${option.name}`, make: field,
        });
        const row = view("div", "train-lora-row-buttons", {parts: [
            choice(),
            button("train-lora-small", {text: () => "Start", job: () => "captions", press: start, needed: () => !running() && chosen()}),
            button("train-lora-small", {text: () => "Stop", job: () => "captions", press: stop, needed: running}),
        ]});
        const all = view("details", "train-lora-caption-tools", {parts: [
            line("summary", "", () => "Write captions automatically"), row,
            line("p", "train-lora-problem", needs, () => needs() !== ""), line("p", "train-lora-note", note, () => note() !== ""),
            ...progress(), fields,
        ]});
        all.node.addEventListener("toggle", () => {
            if (!all.node.open) return;
            load();
            poll();
        });
        const {show} = all;
        all.show = (shown) => {
            if (of !== page.images.id()) poll();
            show(shown);
        };
        return all;
    }

    restore();
    document.addEventListener("visibilitychange", () => {
        if (!document.hidden && state?.running) poll();
    });

    return {build};
})();
