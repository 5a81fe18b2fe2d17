// Progress of a training, by polling one route: works with and without gradio's queue, and finds a running job after a reload.
(function () {
    "use strict";

    const STATUS = "train-lora/status";
    const SAMPLE = "train-lora/sample";
    const KEY = "train-lora/key";
    const SHOWN_SAMPLES = 6; // columns of the newest samples
    const FAST_MS = 500;
    const REFRESHED_MS = 10000; // a gallery that has not answered by then is not waited for
    const SLOW_MS = 4000;
    const CHANGED_MS = 400;
    const PRESSED_MS = 1000; // from the key of a press of Train to gradio's own notice that its answer is out
    const LOST_MS = 60000; // an answer that has not come by then is not waited for
    const SVG = "http://www.w3.org/2000/svg";
    const ACTIVE = ["running", "lent", "paused", "stopping"];
    const WORDS = {running: "Running", lent: "Lent", paused: "Paused", stopping: "Stopping", done: "Done", stopped: "Stopped", failed: "Failed"};

    let shown = emptyRun(null);
    let drawn = ""; // what the panel shows, as text, so that it is rebuilt only when something changed
    let dismissed = null; // an old job that a refused start has put out of sight
    let refreshedFor = null;
    let starting = false;
    let answeredBefore = null; // the job that the server's last answer to Train named
    let timer = null;
    let sampleTable = null;
    const lists = {}; // the lists of sentences that the panel shows
    let pressed = false; // Train, and gradio does not know yet
    let locked = false; // the webui wants credentials that this page has not got

    function emptyRun(id) {
        return {id: id, losses: [], means: [], mean: 0, low: Infinity, high: -Infinity};
    }

    // a job that is resumed runs again under its id
    function runOf(job) {
        return `${job.id} ${job.started}`;
    }

    // exponential mean with the bias of its start taken out
    function take(run, losses) {
        for (const told of losses) {
            const loss = told === null ? run.losses[run.losses.length - 1] || 0 : told; // no number: a note says which step
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

    // made anew only when its texts are others: the panel is drawn twice a second, and there may be many
    function keptList(slot, texts, className) {
        const key = JSON.stringify(texts);
        if (!lists[slot] || lists[slot].key !== key) lists[slot] = {key: key, node: list(texts, className)};
        return lists[slot].node;
    }

    function heldOut(job) {
        const loss = job.held_out[job.held_out.length - 1][1];
        return `held-out loss ${loss === null ? "is not a number" : loss.toFixed(4)}`;
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

    function chart(total, first) {
        const svg = document.createElementNS(SVG, "svg");
        svg.setAttribute("viewBox", "0 0 400 160");
        svg.setAttribute("class", "train-lora-chart");
        svg.setAttribute("role", "img");
        svg.setAttribute("aria-label", "Loss by step");
        const box = { // losses begin with the step that the run began or went on with
            x: (index) => 44 + 350 * (first + index) / Math.max(total - 1, 1),
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

    // rows are prompts, columns are steps, the newest last; made anew only when there are new ones, so that nothing flickers
    function samples(job) {
        const key = JSON.stringify([job.id, job.prompts, job.sampled]);
        if (!sampleTable || sampleTable.dataset.key !== key) {
            sampleTable = madeSamples(job);
            sampleTable.dataset.key = key;
        }
        return sampleTable;
    }

    function madeSamples(job) {
        const table = element("table", "train-lora-samples");
        const steps = job.sampled.slice(-SHOWN_SAMPLES);
        const head = element("tr");
        head.append(element("th"), ...steps.map(([step]) => element("th", "", step ? `Step ${step}` : "Before")));
        table.append(head);
        job.prompts.forEach((prompt, place) => {
            const row = element("tr");
            const name = element("th", "", prompt);
            name.title = prompt;
            row.append(name);
            for (const [step, count] of steps) {
                const cell = element("td");
                if (place < count) {
                    const picture = element("img");
                    picture.src = `${SAMPLE}/${job.id}/${step}/${place}`;
                    picture.alt = `${prompt}, step ${step}`;
                    cell.append(picture);
                }
                row.append(cell);
            }
            table.append(row);
        });
        return table;
    }

    function bestLine(job) {
        const box = element("div", "train-lora-best");
        const button = element("button", "train-lora-test", "Use the best");
        button.addEventListener("click", () => find("#train_lora_use_best").click());
        box.append(element("span", "", `The lowest held-out loss, ${job.best.loss.toFixed(4)}, was at step ${job.best.step}.`), button);
        return box;
    }

    function showButtons(state) {
        const visible = {
            train_lora_more_buttons: ACTIVE.includes(state),
            train_lora_pause: state === "running" || state === "lent",
            train_lora_go_on: state === "paused",
            train_lora_save_now: ["running", "lent", "paused"].includes(state),
        };
        for (const [id, shows] of Object.entries(visible)) {
            const node = find(`#${id}`);
            if (node) node.classList.toggle("train-lora-hidden", !shows);
        }
    }

    function render(job) {
        const panel = find("#train_lora_progress");
        const text = JSON.stringify([job, shown.losses.length]);
        if (!panel || text === drawn || dismissed === runOf(job)) return;
        drawn = text;
        const head = element("div", `train-lora-head train-lora-${job.state}`);
        if (job.name) head.append(element("b", "", job.name));
        head.append(element("span", "train-lora-state", WORDS[job.state]), element("span", "train-lora-phase", job.phase));
        const parts = [head];
        if (job.problems.length) parts.push(keptList("problems", job.problems, "train-lora-problem"));
        if (job.notes.length) parts.push(keptList("notes", job.notes, "train-lora-note"));
        if (job.choices.length) parts.push(keptList("choices", job.choices, "train-lora-note"));
        if (job.held_out.length) head.append(element("span", "train-lora-phase", heldOut(job)));
        if (job.total) {
            const bar = element("progress", "train-lora-bar");
            bar.max = job.total;
            bar.value = job.step;
            parts.push(bar, numbers(job));
        }
        if (shown.losses.length > 1) parts.push(chart(job.total, job.first_step));
        if (job.sampled.length) parts.push(samples(job));
        if (job.between.length) parts.push(element("div", "train-lora-phase", `Saved in between: ${job.between.join(", ")}`));
        if (job.left.length && !ACTIVE.includes(job.state)) parts.push(element("div", "train-lora-phase", `Left on the disk: ${job.left.join(", ")}`));
        if (job.best && !ACTIVE.includes(job.state)) parts.push(bestLine(job));
        if (job.saved && job.state === "done") parts.push(testButton(job));
        panel.replaceChildren(...parts);
        showButtons(job.state);
        panel.dataset.state = job.state;
        panel.dataset.job = job.id;
    }

    function refreshCards(job) {
        if (refreshedFor === job.id) return;
        const buttons = ["txt2img", "img2img"].map((tab) => find(`#${tab}_lora_extra_refresh_internal`));
        if (buttons.some((button) => !button)) return;
        refreshedFor = job.id;
        buttons[0].dispatchEvent(new Event("click"));
        afterAnswer("txt2img", () => buttons[1].dispatchEvent(new Event("click")));
    }

    // one gallery after the other: each refresh empties the webui's one list of LoRAs before it fills it again
    function afterAnswer(tab, next) {
        const pane = () => find(`#${tab}_lora_pane`); // an answer puts a new one there
        const before = pane(), asked = Date.now();
        const timer = setInterval(() => {
            if (pane() === before && Date.now() - asked < REFRESHED_MS) return;
            clearInterval(timer);
            next();
        }, 100);
    }

    async function status(since) {
        const response = await fetch(`${STATUS}?since=${since}`, {cache: "no-store"});
        if (response.status === 401) locked = true;
        if (!response.ok) return null;
        const told = await response.json();
        document.dispatchEvent(new CustomEvent("trainLoraStatus", {detail: told})); // for the list of jobs
        return told.job;
    }

    // what an event must bring to be answered; the browser asks for the API's credentials where the webui has no other login
    async function key() {
        const response = await fetch(KEY, {method: "POST", cache: "no-store"}).catch(() => null);
        if (!response) return "";
        if (response.ok && locked) {
            locked = false;
            poll();
        }
        locked = response.status === 401;
        return response.ok ? (await response.json()).key : "";
    }

    // the job as it is now, with `shown` brought up to date
    async function latest() {
        const since = shown.losses.length;
        let job = await status(since);
        if (job && runOf(job) !== shown.id) {
            if (since) job = await status(0);
            shown = emptyRun(runOf(job));
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
                const active = ACTIVE.includes(job.state);
                const message = find("#train_lora_message [data-job]");
                if (message && message.dataset.job === job.id && (!starting || job.id !== answeredBefore)) {
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
        if (!locked) timer = setTimeout(poll, wait);
    }

    // called by gradio before an event: its first input is the key
    window.trainLoraWithKey = async function (_, ...values) {
        return [await key(), ...values];
    };

    // the same for the report, which is asked for by itself: nobody is asked for credentials a second time because of it
    let refusedOnce = false;
    window.trainLoraReport = async function (_, ...values) {
        const given = locked && refusedOnce ? "" : await key();
        refusedOnce = given === "";
        return [given, ...values];
    };

    // called by gradio when Train is pressed: say at once that something happens
    window.trainLoraStarted = async function (_, ...values) {
        const panel = find("#train_lora_progress");
        if (panel && !ACTIVE.includes(panel.dataset.state)) {
            const message = find("#train_lora_message [data-job]");
            answeredBefore = message ? message.dataset.job : null;
            starting = true;
            drawn = "";
            panel.dataset.state = "starting";
            panel.replaceChildren(element("div", "train-lora-head", "Starting"));
        }
        clearTimeout(timer);
        timer = setTimeout(poll, FAST_MS);
        try {
            return [await key(), ...values];
        } finally {
            setTimeout(() => { pressed = false; }, PRESSED_MS);
        }
    };

    // The second click of a double click begins nothing, nor does any until the first is on its way: from then on gradio drops them.
    function trainPressed(event) {
        if (!event.target.closest("#train_lora_train")) return;
        if (pressed || event.detail > 1) {
            event.stopPropagation();
            return;
        }
        pressed = true;
        setTimeout(() => { pressed = false; }, LOST_MS); // one that gradio dropped has no answer
    }

    // the server let the job wait, or refused to start: its sentences stand above, an older job is out of sight
    function answered() {
        pressed = false;
        if (find("#train_lora_message [data-queue-serial]")) {
            starting = false;
            drawn = "";
            poll();
            return;
        }
        if (!find("#train_lora_message .train-lora-problem")) {
            poll();
            return;
        }
        starting = false;
        const panel = find("#train_lora_progress");
        if (!ACTIVE.includes(panel.dataset.state)) {
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
        find("#train_lora_buttons").addEventListener("click", trainPressed, true); // before gradio's own
        poll();
    });
})();
