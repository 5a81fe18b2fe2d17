// The samples of a run: rows are prompts, columns are steps, those before the first step always in sight. A click, or Enter,
// enlarges one; arrow keys then go from step to step and from prompt to prompt.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.samples = (() => {
    const page = window.trainLora;
    const SAMPLE = "train-lora/sample";
    const COLUMNS = 6; // the first, and the newest
    const OPENS = {Enter: true, " ": true};
    const MOVES = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

    let told = null; // the job shown last
    let large = null; // the dialog
    let at = null; // `{job, step, place}` in the dialog

    function columns({job: {sampled}}) {
        return sampled.length > COLUMNS ? [sampled[0], ...sampled.slice(1 - COLUMNS)] : sampled;
    }

    const rows = ({job}) => job.prompts.map((prompt, place) => ({job, prompt, place}));

    // A step with its epoch: a whole number where one ends.
    function stepName({steps_per_epoch: each}, step) {
        if (!step) return page.words.say("Before");
        if (!each) return page.words.say("Step {step}", {step});
        const epoch = step / each;
        return page.words.say("Step {step}, epoch {epoch}", {step, epoch: Number.isInteger(epoch) ? epoch : epoch.toFixed(1)});
    }

    const alt = (prompt, step) => page.words.say("{prompt}, step {step}", {prompt, step});

    // No `src` if the prompt was added after the step.
    function picturesOf({job, prompt, place}) {
        return columns({job}).map(([step, count]) => ({
            job, step, place, src: place < count ? `${SAMPLE}/${job.id}/${step}/${place}` : "", alt: alt(prompt, step),
        }));
    }

    function picture() {
        const one = page.dom.view("img", "", {
            attributes: ({src, alt: text}) => ({src, alt: text, role: "button", tabindex: 0, title: "Enlarge"}), needed: ({src}) => src,
        });
        one.node.addEventListener("click", () => open(one.shown));
        one.node.addEventListener("keydown", (event) => {
            if (!OPENS[event.key]) return;
            event.preventDefault();
            open(one.shown);
        });
        return one;
    }

    function open({job, step, place}) {
        large = large || build();
        at = {job: job.id, step, place};
        showLarge();
        if (!large.node.open) large.node.showModal();
    }

    function showLarge() {
        if (!at || told?.id !== at.job) large.node.close();
        else large.show({...at, job: told, prompt: told.prompts[at.place]});
    }

    const canMove = ([by, down], {job, step, place}) => target(job, step, place, by, down) !== null;

    // Where a move leads; null if there is no sample.
    function target(job, step, place, by, down) {
        const found = job.sampled[job.sampled.findIndex(([other]) => other === step) + by];
        return found && place + down >= 0 && place + down < found[1] ? {job: job.id, step: found[0], place: place + down} : null;
    }

    function move([by, down]) {
        const to = target(told, at.step, at.place, by, down);
        if (!to) return;
        at = to;
        showLarge();
    }

    function build() {
        const {view, line} = page.dom;
        const button = (text, way) => page.dom.button("train-lora-small", {
            text: () => text, press: () => move(way), again: true, unfit: (shown) => !canMove(way, shown),
            attributes: (shown) => ({title: canMove(way, shown) ? "" : "There is no further sample."}),
        });
        const dialog = view("dialog", "train-lora-large", {
            attributes: ({prompt, step}) => ({"aria-label": alt(prompt, step)}),
            parts: [
                view("img", "", {attributes: ({job, step, place, prompt}) => ({
                    src: `${SAMPLE}/${job.id}/${step}/${place}?whole`, alt: alt(prompt, step),
                })}),
                view("div", "train-lora-row-buttons", {parts: [
                    button("Earlier step", MOVES.ArrowLeft), button("Later step", MOVES.ArrowRight),
                    button("Prompt above", MOVES.ArrowUp), button("Prompt below", MOVES.ArrowDown),
                    page.dom.button("train-lora-small", {text: () => "Close", press: () => dialog.node.close()}),
                ]}),
                view("p", "", {attributes: () => ({role: "status"}), parts: [
                    line("b", "", ({job, step}) => stepName(job, step)), line("span", "", ({prompt}) => ` ${prompt}`),
                ]}),
            ],
        });
        dialog.node.addEventListener("keydown", (event) => {
            event.stopPropagation(); // the webui has keys of its own
            if (MOVES[event.key]) { event.preventDefault(); move(MOVES[event.key]); }
        });
        dialog.node.addEventListener("click", ({target: node}) => { if (node === dialog.node) dialog.node.close(); });
        dialog.node.addEventListener("close", () => { at = null; });
        page.dom.find("#train_lora_progress").parentNode.append(dialog.node);
        return dialog;
    }

    function table() {
        const {view, line} = page.dom;
        const cell = () => view("td", "", {parts: [picture()]});
        const name = () => view("th", "", {text: ({prompt}) => prompt, attributes: ({prompt}) => ({title: prompt})});
        const row = () => view("tr", "", {parts: [name()], items: picturesOf, make: cell, key: ({step}) => step});
        const title = () => line("th", "", ({job, step}) => stepName(job, step));
        const head = view("tr", "", {
            parts: [line("th", "", () => "")], items: ({job}) => columns({job}).map(([step]) => ({job, step})), make: title,
            key: ({step}) => step,
        });
        const whole = view("table", "train-lora-samples", {
            parts: [head], items: rows, make: row, needed: ({job}) => job.sampled.length > 0,
        });
        return {...whole, show: (shown) => {
            told = shown.job;
            whole.show(shown);
            if (at) showLarge();
        }};
    }

    return {table};
})();
