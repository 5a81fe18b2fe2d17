// Queue and history: drawn from one route, read again whenever the status names another revision of the list.
(function () {
    "use strict";

    const QUEUE = "train-lora/queue";
    const SVG = "http://www.w3.org/2000/svg";
    const WORDS = {
        waiting: "Waiting", running: "Running", finished: "Done", stopped: "Stopped", failed: "Failed", interrupted: "Interrupted",
        broken: "Unreadable",
    };

    const MOVES = ["up", "down"]; // twice is two places

    let list = null; // the newest answer
    let wanted = null; // the revision that the status named last
    let fetching = false;
    let chosen = ""; // the job whose button was pressed
    let running = null; // the job that the status shows
    const open = new Map(); // id of a job that is looked at -> its details, or null until they are there

    function find(selector) {
        return gradioApp().querySelector(selector);
    }

    function element(tag, className, text) {
        const node = document.createElement(tag);
        if (className) node.className = className;
        if (text !== undefined) node.textContent = text;
        return node;
    }

    // called by gradio when a hidden button is pressed
    window.trainLoraChosen = async function () {
        return window.trainLoraWithKey("", chosen);
    };

    function press(name, id) {
        chosen = id;
        find(`#train_lora_queue_${name}`).click();
    }

    function button(text, action, id) {
        const node = element("button", "train-lora-small", text);
        node.dataset.action = text;
        node.addEventListener("click", (event) => {
            if (event.detail > 1 && !MOVES.includes(action)) return; // of a double click; another row may be there by now
            if (typeof action === "string") press(action, id);
            else action();
        });
        return node;
    }

    function fill(action, id) {
        if (find("#train_lora_files .generating")) return; // while files are on their way nothing may renew the form
        press(action, id);
        find("#train_lora_form").scrollIntoView({behavior: "smooth"});
    }

    function buttons(job, last) {
        const box = element("div", "train-lora-row-buttons");
        const add = (text, action) => box.append(button(text, action, job.id));
        if (job.place > 1) add("Up", "up");
        if (job.place && job.place < last) add("Down", "down");
        if (job.state !== "broken") add(open.has(job.id) ? "Close" : "Look at", () => look(job.id));
        if (job.can_go_on) add("Go on", "resume");
        else if (job.has_state && job.state === "finished") add("Go on", () => fill("extend", job.id));
        if (job.state !== "broken") add("Repeat with changes", () => fill("repeat", job.id));
        if (job.state !== "running" && !job.elsewhere) add("Remove", "remove");
        return box;
    }

    function cells(job) {
        const now = job.state === "running" && !job.elsewhere && running && running.id === job.id ? running : job;
        const word = job.elsewhere ? `${WORDS[job.state]} elsewhere` : WORDS[job.state];
        return [
            job.name || job.id,
            job.place ? `${word}, ${job.place}` : word,
            new Date(job.when * 1000).toLocaleString([], {dateStyle: "short", timeStyle: "short"}),
            now.total ? `${now.step} / ${now.total}` : "",
            job.loss === null ? "" : job.loss.toFixed(4),
        ];
    }

    function row(job, last) {
        const node = element("tr", `train-lora-job train-lora-is-${job.elsewhere ? "elsewhere" : job.state}`);
        node.dataset.job = job.id;
        cells(job).forEach((text) => node.append(element("td", "", text)));
        if (job.elsewhere) node.children[1].title = "In another webui that uses this data folder; go there to change it.";
        if (job.problems.length) node.children[1].append(element("div", "train-lora-problem", job.problems.join(" ")));
        const last_cell = element("td");
        last_cell.append(buttons(job, last));
        node.append(last_cell);
        return node;
    }

    function head() {
        const node = element("tr");
        ["Name", "State", "When", "Step", "Loss", ""].forEach((text) => node.append(element("th", "", text)));
        return node;
    }

    function curve(job) {
        const svg = document.createElementNS(SVG, "svg");
        svg.setAttribute("viewBox", "0 0 400 80");
        svg.setAttribute("class", "train-lora-chart");
        svg.setAttribute("role", "img");
        svg.setAttribute("aria-label", "Loss by step");
        const low = Math.min(...job.curve), high = Math.max(...job.curve);
        const line = document.createElementNS(SVG, "polyline");
        line.setAttribute("class", "train-lora-mean");
        const point = (loss, place) => [4 + 392 * place / (job.curve.length - 1), 4 + 72 * (high - loss) / ((high - low) || 1)];
        line.setAttribute("points", job.curve.map((loss, place) => point(loss, place).map((at) => at.toFixed(1)).join(",")).join(" "));
        svg.append(line);
        return svg;
    }

    function facts(job) {
        const rows = [];
        if (job.saved) rows.push(["LoRA", job.saved]);
        if (job.between.length) rows.push(["Saved in between", job.between.join(", ")]);
        if (job.checkpoint) rows.push(["Checkpoint", job.checkpoint]);
        if (job.first_step) rows.push(["Went on from step", String(job.first_step)]);
        if (job.has_state) rows.push(["Newest state", job.newest_state]);
        job.notes.forEach((text) => rows.push(["", text]));
        job.settings.forEach(([label, name, value]) => rows.push([label, value, name]));
        return rows;
    }

    function detailsRow(job) {
        const node = element("tr", "train-lora-details");
        const cell = element("td");
        cell.colSpan = 6;
        if (job) {
            if (job.curve.length > 1) cell.append(curve(job));
            const table = element("table", "train-lora-report");
            for (const [label, value, name] of facts(job)) {
                const line = element("tr");
                const title = element("th", "", label);
                if (name) title.title = name;
                line.append(title, element("td", "", value));
                table.append(line);
            }
            cell.append(table);
        }
        node.append(cell);
        return node;
    }

    // what jobs leave on the disk beside their LoRAs
    function kept() {
        const {size, limit, free, asked, can_free, can_ask, over, names} = list.kept;
        const bar = element("div", "train-lora-row-buttons");
        bar.id = "train_lora_kept";
        bar.append(element("span", over ? "train-lora-problem" : "train-lora-phase", `Kept by jobs: ${size} of ${limit} GB`));
        if (can_free) bar.append(button(`Remove samples and latents (${free})`, () => {
            const what = "samples, latents, and pictures and states of finished jobs that nobody can go on from";
            if (confirm(`Remove ${free} of ${what}? LoRAs stay.`)) press("kept", "free");
        }, ""));
        if (can_ask) bar.append(button(`Remove saved states (${asked})`, () => {
            const whose = names.length > 10 ? `${names.slice(0, 10).join(", ")} and ${names.length - 10} more` : names.join(", ");
            if (confirm(`Remove ${asked} of saved states and their pictures? These can not be gone on with then: ${whose}. LoRAs stay.`)) {
                press("kept", "states");
            }
        }, ""));
        bar.append(button("Change limit", () => {
            const said = prompt("How many GB may jobs keep beside their LoRAs? The oldest that nobody can go on from goes by itself.", limit);
            if (said !== null) press("kept", said);
        }, ""));
        return bar;
    }

    function render() {
        const panel = find("#train_lora_queue");
        if (!panel || !list) return;
        const waiting = list.jobs.filter((job) => job.place).length;
        const parts = [];
        if (list.trouble) parts.push(element("div", "train-lora-problem", list.trouble));
        if (waiting) {
            const bar = element("div", "train-lora-row-buttons");
            bar.append(list.held ? button("Start queue", "start", "") : button("Hold queue", "hold", ""));
            bar.append(element("span", "train-lora-phase", list.held ? "Waiting jobs are held." : "Each begins when the one before it is over."));
            parts.push(bar);
        }
        if (!list.jobs.length) parts.push(element("div", "train-lora-hint", "No jobs yet. While one runs, Train lets the next wait here."));
        else {
            const table = element("table", "train-lora-jobs");
            table.append(head());
            for (const job of list.jobs) {
                table.append(row(job, waiting));
                if (open.has(job.id)) table.append(detailsRow(open.get(job.id)));
            }
            parts.push(table);
        }
        if (list.kept.can_free || list.kept.can_ask || list.kept.over || list.jobs.length) parts.push(kept());
        panel.replaceChildren(...parts);
        panel.dataset.revision = list.revision;
    }

    async function answer(path) {
        const response = await fetch(path, {cache: "no-store"});
        return response.ok ? response.json() : null;
    }

    async function details(id) {
        const job = await answer(`${QUEUE}/${encodeURIComponent(id)}`);
        if (job && open.has(id)) open.set(id, job);
        if (!job) open.delete(id);
    }

    async function look(id) {
        if (open.has(id)) open.delete(id);
        else {
            open.set(id, null);
            await details(id);
        }
        render();
    }

    async function refresh() {
        if (fetching) return;
        fetching = true;
        try {
            const found = await answer(QUEUE);
            if (found) {
                list = found;
                await Promise.all([...open.keys()].map(details));
                render();
            }
        } catch (error) {
            console.warn("train-lora: the queue is not to be had", error);
        }
        fetching = false;
    }

    // the running row moves on with the status, without asking for the whole list
    function step() {
        const cell = find("#train_lora_queue .train-lora-is-running td:nth-child(4)");
        if (cell && running && running.total) cell.textContent = `${running.step} / ${running.total}`;
    }

    document.addEventListener("trainLoraStatus", (event) => {
        running = event.detail.job;
        wanted = event.detail.queue;
        if (!list || list.revision !== wanted) refresh();
        else step();
    });

    onUiLoaded(() => {
        new MutationObserver(refresh).observe(find("#train_lora_message"), {childList: true, subtree: true, characterData: true});
        refresh();
    });
})();
