// A job's row in the list, with its buttons.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.queueRow = (() => {
    const page = window.trainLora;
    const WORDS = {
        waiting: "Waiting", running: "Running", finished: "Done", stopped: "Stopped", failed: "Failed", interrupted: "Interrupted",
        broken: "Unreadable",
    };
    const DOES = {
        up: (job) => page.queue.press("up", job.id),
        down: (job) => page.queue.press("down", job.id),
        look: (job) => page.queue.look(job.id),
        resume: (job) => page.queue.press("resume", job.id),
        extend: (job) => page.queue.fill("extend", job.id),
        repeat: (job) => page.queue.fill("repeat", job.id),
        remove(job) {
            const loss = "Images that were dropped for it are removed too; its LoRAs and saved states are kept.";
            if (confirm(`Remove ${nameOf(job)} from the list? ${loss}`)) page.queue.press("remove", job.id);
        },
    };
    const WHEN = new Intl.DateTimeFormat([], {dateStyle: "short", timeStyle: "short"});
    const MOVES = ["up", "down"]; // a double click moves by two places

    const nameOf = (job) => job.name || job.id;

    function actions({job, last, isOpen}) {
        const readable = job.state !== "broken";
        return [
            job.place > 1 && ["up", "Up"],
            job.place && job.place < last && ["down", "Down"],
            readable && ["look", isOpen ? "Close" : "Details"],
            job.can_resume && ["resume", "Resume"],
            !job.can_resume && job.has_state && job.state === "finished" && ["extend", "Extend"],
            readable && ["repeat", "Repeat with changes"],
            job.state !== "running" && !job.elsewhere && ["remove", "Remove"],
        ].filter(Boolean);
    }

    function buttons() {
        const node = page.dom.element("div", "train-lora-row-buttons");
        let shown = null;
        const made = page.dom.keyed(([action]) => action, ([action]) => {
            const press = () => DOES[action](shown.job);
            const view = page.dom.button("train-lora-small", press, {again: MOVES.includes(action)});
            return {
                node: view.node,
                show([, text]) {
                    view.show(text, nameOf(shown.job));
                    if (action === "look") page.dom.setAttribute(view.node, "aria-expanded", String(shown.isOpen));
                },
            };
        });
        return {
            node,
            show(item) {
                shown = item;
                page.dom.arrange(node, made(actions(item)));
            },
        };
    }

    function texts({job, running}) {
        const now = job.state === "running" && !job.elsewhere && running && running.id === job.id ? running : job;
        const word = job.elsewhere ? `${WORDS[job.state]} elsewhere` : WORDS[job.state];
        return [
            nameOf(job),
            job.place ? `${word}, ${job.place}` : word,
            WHEN.format(job.when * 1000),
            now.total ? `${now.step} / ${now.total}` : "",
            job.loss === null ? "" : job.loss.toFixed(4),
        ];
    }

    // A view of `{job, last, running, isOpen}`; `last` is the last place in the queue.
    function row() {
        const node = page.dom.element("tr");
        const cells = ["name", "state", "when", "step", "loss", "buttons"].map(() => page.dom.element("td"));
        const [name, state, when, step, loss, last] = cells;
        const word = page.dom.element("span");
        const problems = page.dom.element("div", "train-lora-problem");
        const bar = buttons();
        last.append(bar.node);
        node.append(...cells);
        return {
            node,
            show(item) {
                const {job} = item;
                node.className = `train-lora-job train-lora-is-${job.elsewhere ? "elsewhere" : job.state}`;
                node.dataset.job = job.id;
                for (const [place, text] of texts(item).entries()) page.dom.setText([name, word, when, step, loss][place], text);
                page.dom.setText(problems, job.problems.join(" "));
                page.dom.arrange(state, job.problems.length ? [word, problems] : [word]);
                state.title = job.elsewhere ? "In another webui that uses this data folder; change it there." : "";
                bar.show(item);
            },
        };
    }

    return {row};
})();
