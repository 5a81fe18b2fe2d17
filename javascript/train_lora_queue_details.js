// The details of a job, below its row.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.queueDetails = (() => {
    const page = window.trainLora;

    // `[label, value, name of the option]`
    function facts(job) {
        const rows = [];
        if (job.saved) rows.push(["LoRA", job.saved]);
        if (job.between.length) rows.push(["Saved in between", job.between.join(", ")]);
        if (job.checkpoint) rows.push(["Checkpoint", job.checkpoint]);
        if (job.first_step) rows.push(["Resumed from step", String(job.first_step)]);
        if (job.has_state) rows.push(["Newest state", job.newest_state]);
        return [...rows, ...job.notes.map((text) => ["", text]), ...job.settings.map(([label, name, value]) => [label, value, name])];
    }

    function line() {
        const node = page.dom.element("tr");
        const title = page.dom.element("th");
        const text = page.dom.element("td");
        node.append(title, text);
        return {
            node,
            show([label, value, name]) {
                page.dom.setText(title, label);
                title.title = name || "";
                page.dom.setText(text, value);
            },
        };
    }

    // A view of `{details}`, which are null until they are loaded.
    function row() {
        const node = page.dom.element("tr", "train-lora-details");
        const cell = page.dom.element("td");
        cell.colSpan = 6;
        node.append(cell);
        const chart = page.chart.small();
        const table = page.dom.element("table", "train-lora-report");
        const lines = page.dom.keyed((_, place) => place, line);
        return {
            node,
            show({details: job}) {
                if (!job) return;
                const drawn = job.curve.length > 1;
                if (drawn) {
                    const shown = {low: Math.min(...job.curve), high: Math.max(...job.curve), first: 0, steps: job.curve.length};
                    chart.show({lines: {"train-lora-mean": job.curve}, ...shown});
                }
                page.dom.arrange(table, lines(facts(job)));
                page.dom.arrange(cell, drawn ? [chart.node, table] : [table]);
            },
        };
    }

    return {row};
})();
