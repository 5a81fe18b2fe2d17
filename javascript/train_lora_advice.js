// Settings that follow from images, model and memory: two questions, a button that fills the form, and the reasons.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.advice = (() => {
    const page = window.trainLora;
    const KINDS = {person: "Person or character", style: "Style", object: "Object"};
    const THOROUGH = {1: "Very fast", 2: "Fast", 3: "Normal", 4: "Thorough", 5: "Very thorough"};
    const ANSWERS = "train_lora_answers"; // in the browser
    const CHOSEN = "train_lora_chosen"; // likewise: values that were chosen here, which may be replaced; what the user sets stays

    let parts = null;
    let told = {problems: [], advice: null};

    const kept = (name, otherwise) => JSON.parse(localStorage.getItem(name) || "null") ?? otherwise;
    const answers = () => ({kind: "person", thoroughness: 3, ...kept(ANSWERS, {})});

    function question(name, label, choices, read) {
        const made = page.imagesPanel.control("select", {"aria-label": label, title: label}, "change", ({value}) => {
            localStorage.setItem(ANSWERS, JSON.stringify({...answers(), [name]: read(value)}));
        });
        made.node.append(...Object.entries(choices).map(([value, text]) => new Option(page.words.exact(text), value)));
        made.node.value = String(answers()[name]);
        return made;
    }

    async function choose() {
        const settings = await page.report.current();
        const [dataset, regDataset = ""] = page.images.ids().split("|");
        const asked = {settings, dataset, reg_dataset: regDataset, chosen: kept(CHOSEN, {}), ...answers()};
        const answer = await page.api.send("POST", "advice", asked);
        told = {problems: answer.problems.map(({text}) => text), advice: answer.data?.choices ? answer.data : told.advice};
        show();
        if (!answer.ok) return;
        localStorage.setItem(CHOSEN, JSON.stringify(answer.data.fields));
        page.report.fill(answer.data.fields);
    }

    function summary({choices, kept: stay, steps}) {
        const chosen = page.words.say("{count} settings were chosen.", {count: choices.length});
        const length = steps ? page.words.say("The run has {steps} steps.", {steps}) : "";
        const names = stay.map(({label}) => page.words.exact(label)).join(", ");
        return [chosen, length, names && page.words.say("As you set them: {names}.", {names})].filter(Boolean).join(" ");
    }

    function reasons() {
        const row = () => page.dom.view("tr", "", {parts: [
            page.dom.line("th", "", ({label}) => label), page.dom.line("td", "", ({note}) => note),
            page.dom.line("td", "", ({text}) => text),
        ]});
        const table = page.dom.view("table", "train-lora-report", {items: ({advice}) => advice.choices, key: ({option}) => option, make: row});
        return page.dom.view("details", "", {needed: ({advice}) => advice, parts: [page.dom.line("summary", "", () => "Why"), table]});
    }

    function build() {
        const {button, line, list, view} = page.dom;
        return [
            view("div", "train-lora-row-buttons", {parts: [
                question("kind", "What is it?", KINDS, String), question("thoroughness", "How thorough?", THOROUGH, Number),
                button("train-lora-small", {text: () => "Choose settings for me", press: choose, again: true}),
            ]}),
            view("div", "", {attributes: () => ({role: "status"}), parts: [
                list("train-lora-problem", ({problems}) => problems),
                line("p", "train-lora-note", ({advice}) => summary(advice), ({advice}) => advice),
            ]}),
            reasons(),
        ];
    }

    function show() {
        page.dom.fill(page.dom.find("#train_lora_advice"), parts, told);
    }

    onUiLoaded(() => {
        parts = build();
        show();
    });

    return {};
})();
