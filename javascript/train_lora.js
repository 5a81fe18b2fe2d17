// Progress of a training, by polling one route: works with and without gradio's queue, and finds a running job after a reload.
(function () {
    "use strict";

    const STATUS = "train-lora/status";
    const FAST_MS = 500;
    const SLOW_MS = 4000;
    const CHANGED_MS = 400;
    const LOST_MS = 60000; // an answer that has not come by then is not waited for
    const SVG = "http://www.w3.org/2000/svg";
    const WORDS = {running: "Running", stopping: "Stopping", done: "Done", stopped: "Stopped", failed: "Failed"};

    let shown = emptyRun(null);
    let drawn = ""; // what the panel shows, as text, so that it is rebuilt only when something changed
    let dismissed = null; // an old job that a refused start has put out of sight
    let refreshedFor = null;
    let starting = false;
    let answeredBefore = null; // the job that the server's last answer to Train named
    let timer = null;

    function emptyRun(id) {
        return {id: id, losses: [], means: [], mean: 0, low: Infinity, high: -Infinity};
    }

    // exponential mean with the bias of its start taken out
    function take(run, losses) {
        for (const loss of losses) {
            run.losses.push(loss);
            run.mean = 0.95 * run.mean + 0.05 * loss;
            run.means.push(run.mean / (1 - Math.pow(0.95, run.losses.length)));
            run.low = Math.min(run.low, loss);
            run.high = Math.max(run.high, loss);
        }
    }

    function find(selector) {
        return gradioApp().querySelector(selector);
    }

    function element(tag, className, text) {
        const node = document.createElement(tag);
        if (className) node.className = className;
        if (text !== undefined) node.textContent = text;
        return node;
    }

    function list(texts, className) {
        const node = element("ul", className);
        texts.forEach((text) => node.append(element("li", "", text)));
        return node;
    }

    function duration(seconds) {
        const whole = Math.max(0, Math.round(seconds));
        const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
        return parts.map((part) => String(part).padStart(2, "0")).join(":").replace(/^00:/, "");
    }

    function numbers(job) {
        const rows = [["Step", `${job.step} / ${job.total}`]];
        if (shown.means.length) rows.push(["Loss", shown.means[shown.means.length - 1].toFixed(4)]);
        if (job.steps_per_s) rows.push(["Speed", job.steps_per_s >= 1 ? `${job.steps_per_s.toFixed(2)} it/s` : `${(1 / job.steps_per_s).toFixed(2)} s/it`]);
        if (job.eta_s !== null) rows.push(["Remaining", duration(job.eta_s)]);
        rows.push(["Elapsed", duration(job.seconds)]);
        if (job.memory_gb !== null) rows.push(["Memory", `${job.memory_gb.toFixed(1)} GB`]);
        const table = element("dl", "train-lora-numbers");
        for (const [name, value] of rows) {
            const cell = element("div");
            cell.append(element("dt", "", name), element("dd", "", value));
            table.append(cell);
        }
        return table;
    }

    function thinned(values, most) {
        const stride = Math.ceil(values.length / most);
        return values.map((value, index) => [index, value]).filter((pair) => pair[0] % stride === 0 || pair[0] === values.length - 1);
    }

    function line(values, box, className) {
        const path = document.createElementNS(SVG, "polyline");
        path.setAttribute("class", className);
        path.setAttribute("points", thinned(values, 400).map(([x, y]) => `${box.x(x).toFixed(1)},${box.y(y).toFixed(1)}`).join(" "));
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

    function chart(total) {
        const svg = document.createElementNS(SVG, "svg");
        svg.setAttribute("viewBox", "0 0 400 160");
        svg.setAttribute("class", "train-lora-chart");
        svg.setAttribute("role", "img");
        svg.setAttribute("aria-label", "Loss by step");
        const box = {
            x: (step) => 44 + 350 * step / Math.max(total - 1, 1),
            y: (loss) => 8 + 130 * (shown.high - loss) / ((shown.high - shown.low) || 1),
        };
        svg.append(line(shown.losses, box, "train-lora-raw"), line(shown.means, box, "train-lora-mean"));
        svg.append(label(40, 14, shown.high.toFixed(3), "end"), label(40, 140, shown.low.toFixed(3), "end"));
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
        const prompt = find("#txt2img_prompt > label > textarea");
        const call = `<lora:${job.saved}:1>` + (job.trigger ? ` ${job.trigger}` : "");
        if (!prompt.value.includes(`<lora:${job.saved}:`)) {
            prompt.value = prompt.value.trim() ? `${call}, ${prompt.value}` : call;
            updateInput(prompt);
        }
        switch_to_txt2img();
    }

    function render(job) {
        const panel = find("#train_lora_progress");
        const text = JSON.stringify([job, shown.losses.length]);
        if (!panel || text === drawn || dismissed === job.id) return;
        drawn = text;
        const head = element("div", `train-lora-head train-lora-${job.state}`);
        head.append(element("b", "", job.name), element("span", "train-lora-state", WORDS[job.state]), element("span", "train-lora-phase", job.phase));
        const parts = [head];
        if (job.problems.length) parts.push(list(job.problems, "train-lora-problem"));
        if (job.notes.length) parts.push(list(job.notes, "train-lora-note"));
        if (job.total) {
            const bar = element("progress", "train-lora-bar");
            bar.max = job.total;
            bar.value = job.step;
            parts.push(bar, numbers(job));
        }
        if (shown.losses.length > 1) parts.push(chart(job.total));
        if (job.saved && job.state === "done") parts.push(testButton(job));
        panel.replaceChildren(...parts);
        panel.dataset.state = job.state;
        panel.dataset.job = job.id;
    }

    function refreshCards(job) {
        if (refreshedFor === job.id) return;
        const buttons = ["txt2img", "img2img"].map((tab) => find(`#${tab}_lora_extra_refresh_internal`));
        if (buttons.some((button) => !button)) return;
        refreshedFor = job.id;
        buttons.forEach((button) => button.dispatchEvent(new Event("click")));
    }

    async function status(since) {
        const response = await fetch(`${STATUS}?since=${since}`, {cache: "no-store"});
        return response.ok ? (await response.json()).job : null;
    }

    // the job as it is now, with `shown` brought up to date
    async function latest() {
        const since = shown.losses.length;
        let job = await status(since);
        if (job && job.id !== shown.id) {
            if (since) job = await status(0);
            shown = emptyRun(job.id);
            take(shown, job.losses);
        } else if (job && shown.losses.length === since) {
            take(shown, job.losses);
        }
        if (job) delete job.losses;
        return job;
    }

    async function poll() {
        clearTimeout(timer);
        let wait = starting ? FAST_MS : SLOW_MS;
        try {
            const job = await latest();
            if (job) {
                const active = job.state === "running" || job.state === "stopping";
                const message = find("#train_lora_message [data-job]");
                if (message && message.dataset.job === job.id && job.id !== answeredBefore) {
                    if (message.textContent) message.textContent = "";
                    starting = false;
                }
                if (!starting || active) render(job);
                if (job.state === "done") refreshCards(job);
                if (active) wait = FAST_MS;
            }
        } catch (error) {
            console.warn("train-lora: the status is not to be had", error);
        }
        clearTimeout(timer);
        timer = setTimeout(poll, wait);
    }

    // called by gradio when Train is pressed: say at once that something happens
    window.trainLoraStarted = function (...values) {
        const panel = find("#train_lora_progress");
        if (panel && !["running", "stopping"].includes(panel.dataset.state)) {
            const message = find("#train_lora_message [data-job]");
            answeredBefore = message ? message.dataset.job : null;
            starting = true;
            drawn = "";
            panel.dataset.state = "starting";
            panel.replaceChildren(element("div", "train-lora-head", "Starting"));
        }
        clearTimeout(timer);
        timer = setTimeout(poll, FAST_MS);
        return values;
    };

    // the server refused to start: its sentences stand above, an older job is out of sight
    function answered() {
        if (!find("#train_lora_message .train-lora-problem")) {
            poll();
            return;
        }
        starting = false;
        const panel = find("#train_lora_progress");
        if (!["running", "stopping"].includes(panel.dataset.state)) {
            dismissed = shown.id;
            panel.replaceChildren();
            panel.dataset.state = "refused";
        }
    }

    // The report is renewed a moment after the last change. gradio drops a click while the answer to the last one is
    // out, so a change meanwhile is remembered; every answer differs in its serial number and so is seen to arrive.
    let changed = null;
    let asked = false;
    let again = false;
    let givenUp = null;

    function formChanged() {
        clearTimeout(changed);
        changed = setTimeout(ask, CHANGED_MS);
    }

    // called by gradio when a preset or a file has filled the form, which raises no event of the fields
    window.trainLoraChanged = function () {
        formChanged();
        return [];
    };

    // While dropped files are on their way nothing may read them, and no event of gradio's may renew its components:
    // it would send them once more, or forget them. That is why the form is watched here and not by gradio's listeners.
    function uploading() {
        return find("#train_lora_files .generating") !== null;
    }

    function ask() {
        if (uploading()) {
            formChanged();
            return;
        }
        if (asked) {
            again = true;
            return;
        }
        asked = true;
        clearTimeout(givenUp);
        givenUp = setTimeout(reported, LOST_MS);
        find("#train_lora_check").click();
    }

    function reported() {
        asked = false;
        clearTimeout(givenUp);
        if (again) {
            again = false;
            ask();
        }
    }

    onUiLoaded(() => {
        const watch = {childList: true, subtree: true, characterData: true};
        new MutationObserver(reported).observe(find("#train_lora_report"), watch);
        ["input", "change", "click"].forEach((kind) => find("#train_lora_form").addEventListener(kind, formChanged));
        new MutationObserver(() => {
            find("#train_lora_train").disabled = uploading();
            formChanged();
        }).observe(find("#train_lora_files"), {...watch, attributes: true, attributeFilter: ["class"]});
        new MutationObserver(answered).observe(find("#train_lora_message"), watch);
        poll();
    });
})();
