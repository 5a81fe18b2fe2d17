// The panel of the running or last job. Its parts are in this order, each shown only if needed.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.progress = (() => {
    const page = window.trainLora;
    const WORDS = {running: "Running", lent: "Lent", paused: "Paused", stopping: "Stopping", done: "Done", stopped: "Stopped", failed: "Failed"};

    let parts = null; // views; `needed` says whether there is something to show

    function duration(seconds) {
        const whole = Math.max(0, Math.round(seconds));
        const pieces = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
        return pieces.map((piece) => String(piece).padStart(2, "0")).join(":").replace(/^00:/, "");
    }

    function heldOut(job) {
        const loss = job.held_out[job.held_out.length - 1][1];
        return `validation loss ${loss === null ? "is not a number" : loss.toFixed(4)}`;
    }

    function head() {
        const node = page.dom.element("div", "train-lora-head");
        const name = page.dom.element("b");
        const state = page.dom.element("span", "train-lora-state");
        const phase = page.dom.element("span", "train-lora-phase");
        const loss = page.dom.element("span", "train-lora-phase");
        return {
            node,
            show({job}) {
                page.dom.setText(name, job.name);
                page.dom.setText(state, WORDS[job.state]);
                page.dom.setText(phase, job.phase);
                if (job.held_out.length) page.dom.setText(loss, heldOut(job));
                page.dom.arrange(node, [...(job.name ? [name] : []), state, phase, ...(job.held_out.length ? [loss] : [])]);
            },
        };
    }

    function bar() {
        const node = page.dom.element("progress", "train-lora-bar");
        return {
            node,
            show({job}) {
                node.max = job.total;
                node.value = job.step;
                page.dom.setAttribute(node, "aria-label", `Steps of ${job.name}`);
            },
        };
    }

    function facts({job, run}) {
        const speed = job.steps_per_s;
        const rows = [["Step", `${job.step} / ${job.total}`]];
        if (run.means.length) rows.push(["Loss", run.means[run.means.length - 1].toFixed(4)]);
        if (speed) rows.push(["Speed", speed >= 1 ? `${speed.toFixed(2)} it/s` : `${(1 / speed).toFixed(2)} s/it`]);
        if (job.eta_s !== null) rows.push(["Remaining", duration(job.eta_s)]);
        rows.push(["Elapsed", duration(job.seconds)]);
        if (job.memory_gb !== null) rows.push(["Memory", `${job.memory_gb.toFixed(1)} GB`]);
        return rows;
    }

    function numbers() {
        const node = page.dom.element("dl", "train-lora-numbers");
        const cells = page.dom.keyed(([name]) => name, ([name]) => {
            const cell = page.dom.element("div");
            const value = page.dom.element("dd");
            cell.append(page.dom.element("dt", "", name), value);
            return {node: cell, show: ([, text]) => page.dom.setText(value, text)};
        });
        return {node, show: (shown) => page.dom.arrange(node, cells(facts(shown)))};
    }

    function chart() {
        const view = page.chart.labelled();
        return {
            node: view.node,
            show({job, run}) {
                const lines = {"train-lora-raw": run.losses, "train-lora-mean": run.means};
                view.show({lines, low: run.low, high: run.high, first: job.first_step, steps: job.total});
            },
        };
    }

    function sentences(className, texts) {
        const view = page.dom.list(className);
        return {node: view.node, show: (shown) => view.show(texts(shown)), needed: (shown) => texts(shown).length > 0};
    }

    function files(title, names) {
        const node = page.dom.element("div", "train-lora-phase");
        return {
            node,
            show: ({job}) => page.dom.setText(node, `${title}: ${names(job).join(", ")}`),
            needed: ({job}) => names(job).length > 0,
        };
    }

    function best() {
        const node = page.dom.element("div", "train-lora-best");
        const text = page.dom.element("span");
        const use = page.dom.button("train-lora-test", () => page.dom.find("#train_lora_use_best").click());
        node.append(text, use.node);
        return {
            node,
            show({job}) {
                page.dom.setText(text, `Lowest validation loss: ${job.best.loss.toFixed(4)} at step ${job.best.step}.`);
                use.show("Use the best", job.name);
            },
        };
    }

    function test() {
        let shown = null;
        const view = page.dom.button("train-lora-test", () => page.txt2img.test(shown));
        view.node.id = "train_lora_test";
        return {
            node: view.node,
            show({job}) {
                shown = job;
                view.show("Test in txt2img", job.name);
            },
        };
    }

    function build() {
        const samples = page.samples.table();
        const over = (job) => !page.status.isActive(job.state);
        const counted = ({job}) => job.total > 0;
        return [
            {...head(), needed: () => true},
            sentences("train-lora-problem", ({job}) => job.problems),
            sentences("train-lora-note", ({job}) => job.notes),
            sentences("train-lora-note", ({job}) => job.choices),
            {...bar(), needed: counted},
            {...numbers(), needed: counted},
            {...chart(), needed: ({run}) => run.losses.length > 1},
            {node: samples.node, show: ({job}) => samples.show(job), needed: ({job}) => job.sampled.length > 0},
            files("Saved in between", (job) => job.between),
            files("Files left on the disk", (job) => (over(job) ? job.left : [])),
            {...best(), needed: ({job}) => job.best && over(job)},
            {...test(), needed: ({job}) => job.saved && job.state === "done"},
        ];
    }

    function show(shown) {
        const panel = page.dom.find("#train_lora_progress");
        if (!panel) return;
        parts = parts || build();
        const needed = parts.filter((part) => part.needed(shown));
        for (const part of needed) part.show(shown);
        page.dom.keepingFocus(panel, () => page.dom.arrange(panel, needed.map((part) => part.node)));
        panel.dataset.state = shown.job.state;
        panel.dataset.job = shown.job.id;
    }

    // Shows, instead of a job, that Train was pressed, or nothing.
    function replace(word, text) {
        const panel = page.dom.find("#train_lora_progress");
        panel.replaceChildren(...(text ? [page.dom.element("div", "train-lora-head", text)] : []));
        panel.dataset.state = word;
    }

    function stateShown() {
        const panel = page.dom.find("#train_lora_progress");
        return panel ? panel.dataset.state : undefined;
    }

    document.addEventListener("trainLoraStatus", ({detail}) => {
        if (detail.job && !page.train.hides(detail.job)) show(detail);
    });

    return {WORDS, replace, stateShown};
})();
