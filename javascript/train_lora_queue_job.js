// A job in the list: its row with its buttons, and its details below.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.queueJob = (() => {
    const page = window.trainLora;
    const REMOVE = "Remove {name} from the list? Images that were dropped for it are removed too; its LoRAs and saved states are kept.";
    const WHEN = new Intl.DateTimeFormat([], {dateStyle: "short", timeStyle: "short"});

    const nameOf = ({job}) => job.name || job.id;
    const isReadable = ({job}) => job.state !== "broken";
    const press = (action) => ({job}) => page.queue.press(action, job.id);
    const fill = (action) => ({job}) => page.queue.fill(action, job.id);

    function remove({job}) {
        if (confirm(page.words.say(REMOVE, {name: nameOf({job})}))) page.queue.press("remove", job.id);
    }

    // A double click on Up or Down moves by two places.
    function buttons() {
        const button = (text, does, needed, more = {}) => page.dom.button("train-lora-small", {
            text: () => text, job: nameOf, press: does, needed, ...more,
        });
        return [
            button("Up", press("up"), ({job}) => job.place > 1, {again: true}),
            button("Down", press("down"), ({job, last}) => job.place && job.place < last, {again: true}),
            button("", ({job}) => page.queue.look(job.id), isReadable, {
                text: ({isOpen}) => (isOpen ? "Close" : "Details"), attributes: ({isOpen}) => ({"aria-expanded": isOpen}),
            }),
            button("Resume", press("resume"), ({job}) => job.can_resume),
            button("Extend", fill("extend"), ({job}) => !job.can_resume && job.has_state && job.state === "finished"),
            button("Repeat with changes", fill("repeat"), isReadable),
            button("Remove", remove, ({job}) => job.state !== "running" && !job.elsewhere),
        ];
    }

    function stateOf({job}) {
        const state = page.words.say(page.status.WORDS[job.state]);
        const word = job.elsewhere ? page.words.say("{state} elsewhere", {state}) : state;
        return job.place ? `${word}, ${job.place}` : word;
    }

    function stepOf({job, running}) {
        const now = job.state === "running" && !job.elsewhere && running && running.id === job.id ? running : job;
        return now.total ? `${now.step} / ${now.total}` : "";
    }

    // A view of `{job, last, running, isOpen}`; `last` is the last place in the queue.
    function row() {
        const {view, line} = page.dom;
        const problems = ({job}) => job.problems.join(" ");
        return view("tr", "", {
            attributes: ({job}) => ({
                class: `train-lora-job train-lora-is-${job.elsewhere ? "elsewhere" : job.state}`, "data-job": job.id,
            }),
            parts: [
                line("td", "", nameOf),
                view("td", "", {
                    attributes: ({job}) => ({
                        title: job.elsewhere ? "In another webui that uses this data folder; change it there." : "",
                    }),
                    parts: [line("span", "", stateOf), line("div", "train-lora-problem", problems, ({job}) => job.problems.length)],
                }),
                line("td", "", ({job}) => WHEN.format(job.when * 1000)),
                line("td", "", stepOf),
                line("td", "", ({job}) => (job.loss === null ? "" : job.loss.toFixed(4))),
                view("td", "", {parts: [view("div", "train-lora-row-buttons", {parts: buttons()})]}),
            ],
        });
    }

    // `[label, value, name of the option]`
    function facts({details: job}) {
        const rows = [];
        if (job.saved) rows.push(["LoRA", job.saved]);
        if (job.between.length) rows.push(["Saved in between", job.between.join(", ")]);
        if (job.checkpoint) rows.push(["Checkpoint", job.checkpoint]);
        if (job.first_step) rows.push(["Resumed from step", String(job.first_step)]);
        if (job.has_state) rows.push(["Newest state", job.newest_state]);
        return [...rows, ...job.notes.map((text) => ["", text]), ...job.settings.map(([label, name, value]) => [label, value, name])];
    }

    function fact() {
        const label = page.dom.view("th", "", {text: ([text]) => text, attributes: ([, , name]) => ({title: name || ""})});
        return page.dom.view("tr", "", {parts: [label, page.dom.line("td", "", ([, value]) => value)]});
    }

    function curve({details: {curve: losses}}) {
        return {losses, low: Math.min(...losses), high: Math.max(...losses)};
    }

    // A view of `{details}`, which are null until they are loaded.
    function details() {
        const chart = page.chart.small(curve, (shown) => shown.details && shown.details.curve.length > 1);
        const table = page.dom.view("table", "train-lora-report", {items: facts, make: fact, needed: (shown) => shown.details});
        const cell = page.dom.view("td", "", {attributes: () => ({colspan: 6}), parts: [chart, table]});
        return page.dom.view("tr", "train-lora-details", {parts: [cell]});
    }

    return {row, details};
})();
