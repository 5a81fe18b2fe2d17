// Progress of a training, by polling one route: works with and without gradio's queue, and finds a running job after a reload.
(function () {
    "use strict";

    const STATUS = "train-lora/status";
    const FAST_MS = 500;
    const SLOW_MS = 4000;
    const SVG = "http://www.w3.org/2000/svg";
    const WORDS = {running: "Running", stopping: "Stopping", done: "Done", stopped: "Stopped", failed: "Failed"};

    let shown = {id: null, losses: []};
    let refreshedFor = null;
    let timer = null;

    function element(tag, className, text) {
        const node = document.createElement(tag);
        if (className) node.className = className;
        if (text !== undefined) node.textContent = text;
        return node;
    }

    function duration(seconds) {
        const whole = Math.max(0, Math.round(seconds));
        const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
        return parts.map((part) => String(part).padStart(2, "0")).join(":").replace(/^00:/, "");
    }

    function numbers(job) {
        const rows = [["Step", `${job.step} / ${job.total}`]];
        if (shown.losses.length) rows.push(["Loss", smooth(shown.losses).slice(-1)[0].toFixed(4)]);
        if (job.steps_per_s) rows.push(["Speed", job.steps_per_s >= 1 ? `${job.steps_per_s.toFixed(2)} it/s` : `${(1 / job.steps_per_s).toFixed(2)} s/it`]);
        if (job.eta_s !== null) rows.push(["Remaining", duration(job.eta_s)]);
        rows.push(["Elapsed", duration(job.seconds)]);
        if (job.memory_gb !== null) rows.push(["Memory", `${job.memory_gb.toFixed(1)} GB`]);
        return rows;
    }

    // exponential mean with the bias of its start taken out
    function smooth(losses) {
        let mean = 0;
        return losses.map((loss, index) => {
            mean = 0.95 * mean + 0.05 * loss;
            return mean / (1 - Math.pow(0.95, index + 1));
        });
    }

    function thinned(values, most) {
        const stride = Math.ceil(values.length / most);
        return values.map((value, index) => [index, value]).filter((pair) => pair[0] % stride === 0 || pair[0] === values.length - 1);
    }

    function line(points, box, className) {
        const path = document.createElementNS(SVG, "polyline");
        path.setAttribute("class", className);
        path.setAttribute("points", points.map(([x, y]) => `${box.x(x).toFixed(1)},${box.y(y).toFixed(1)}`).join(" "));
        return path;
    }

    function label(x, y, text, anchor) {
        const node = document.createElementNS(SVG, "text");
        node.setAttribute("x", x);
        node.setAttribute("y", y);
        node.setAttribute("text-anchor", anchor);
        node.textContent = text;
        return node;
    }

    function chart(losses, total) {
        const svg = document.createElementNS(SVG, "svg");
        svg.setAttribute("viewBox", "0 0 400 160");
        svg.setAttribute("class", "train-lora-chart");
        svg.setAttribute("role", "img");
        svg.setAttribute("aria-label", "Loss by step");
        if (losses.length < 2) return svg;
        const mean = smooth(losses);
        const low = Math.min(...losses);
        const high = Math.max(...losses);
        const box = {
            x: (step) => 44 + 350 * step / Math.max(total - 1, 1),
            y: (loss) => 8 + 130 * (high - loss) / ((high - low) || 1),
        };
        svg.append(line(thinned(losses, 400), box, "train-lora-raw"), line(thinned(mean, 400), box, "train-lora-mean"));
        svg.append(label(40, 14, high.toFixed(3), "end"), label(40, 140, low.toFixed(3), "end"));
        svg.append(label(44, 156, "1", "start"), label(394, 156, String(total), "end"));
        return svg;
    }

    function testButton(job) {
        const button = element("button", "train-lora-test", "Test in txt2img");
        button.id = "train_lora_test";
        button.addEventListener("click", () => testInTxt2img(job));
        return button;
    }

    function testInTxt2img(job) {
        const prompt = gradioApp().querySelector("#txt2img_prompt > label > textarea");
        const call = `<lora:${job.saved}:1>` + (job.trigger ? ` ${job.trigger}` : "");
        if (!prompt.value.includes(`<lora:${job.saved}:`)) {
            prompt.value = prompt.value.trim() ? `${call}, ${prompt.value}` : call;
            updateInput(prompt);
        }
        switch_to_txt2img();
    }

    function render(job) {
        const panel = gradioApp().querySelector("#train_lora_progress");
        if (!panel) return;
        const head = element("div", `train-lora-head train-lora-${job.state}`);
        head.append(element("b", "", job.name), element("span", "train-lora-state", WORDS[job.state]), element("span", "train-lora-phase", job.phase));
        const bar = element("progress", "train-lora-bar");
        bar.max = Math.max(job.total, 1);
        bar.value = job.step;
        const table = element("dl", "train-lora-numbers");
        for (const [name, value] of numbers(job)) {
            const cell = element("div");
            cell.append(element("dt", "", name), element("dd", "", value));
            table.append(cell);
        }
        const problems = element("ul", "train-lora-problem");
        job.problems.forEach((problem) => problems.append(element("li", "", problem)));
        const parts = [head, bar, table, chart(shown.losses, job.total)];
        if (job.problems.length) parts.push(problems);
        if (job.saved && job.state === "done") parts.push(testButton(job));
        panel.replaceChildren(...parts);
        panel.dataset.state = job.state;
        panel.dataset.job = job.id;
    }

    function refreshCards(job) {
        if (refreshedFor === job.id) return;
        const buttons = ["txt2img", "img2img"].map((tab) => gradioApp().querySelector(`#${tab}_lora_extra_refresh_internal`));
        if (buttons.some((button) => !button)) return;
        refreshedFor = job.id;
        buttons.forEach((button) => button.dispatchEvent(new Event("click")));
    }

    async function poll() {
        clearTimeout(timer);
        let wait = SLOW_MS;
        try {
            const since = shown.losses.length;
            const response = await fetch(`${STATUS}?since=${since}`, {cache: "no-store"});
            const job = response.ok ? (await response.json()).job : null;
            if (job) {
                if (job.id !== shown.id) {
                    const whole = since ? (await (await fetch(`${STATUS}?since=0`, {cache: "no-store"})).json()).job : job;
                    shown = {id: job.id, losses: whole.losses};
                } else if (shown.losses.length === since) {
                    shown.losses.push(...job.losses);
                }
                const message = gradioApp().querySelector("#train_lora_message [data-job]");
                if (message && message.dataset.job === job.id) message.textContent = "";
                render(job);
                if (job.state === "done") refreshCards(job);
                if (job.state === "running" || job.state === "stopping") wait = FAST_MS;
            }
        } catch (error) {
            console.warn("train-lora: status is not to be had", error);
        }
        timer = setTimeout(poll, wait);
    }

    // the report is renewed a moment after the last change
    let changed = null;
    window.trainLoraChanged = function () {
        clearTimeout(changed);
        changed = setTimeout(() => gradioApp().querySelector("#train_lora_check").click(), 400);
        return [];
    };

    function watchForm() {
        const form = gradioApp().querySelector("#train_lora_form");
        ["input", "change", "focusout", "click"].forEach((kind) => form.addEventListener(kind, window.trainLoraChanged));
    }

    // called by gradio when Train is pressed: look soon, and say at once that something happens
    window.trainLoraStarted = function (...values) {
        const panel = gradioApp().querySelector("#train_lora_progress");
        if (panel && panel.dataset.state !== "running") panel.replaceChildren(element("div", "train-lora-head", "Starting"));
        clearTimeout(timer);
        timer = setTimeout(poll, 300);
        return values;
    };

    onUiLoaded(() => {
        watchForm();
        poll();
    });
})();
