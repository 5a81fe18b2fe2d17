// Queue and history, read from one route whenever the status has a new revision of the list.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.queue = (() => {
    const page = window.trainLora;
    const QUEUE = "train-lora/queue";
    const MOST_NAMES = 10;
    const REMOVE_UNNEEDED = "Remove {size} of samples, latents, and images and states of finished jobs that are not needed to resume any? LoRAs are kept.";
    const REMOVE_STATES = "Remove {size} of saved states and their images? These jobs cannot be resumed afterwards: {names}. LoRAs are kept.";
    const HOW_MUCH = "How many GB may jobs keep besides their LoRAs? Above that, the oldest files that are not needed to resume a job are removed.";
    const COLUMNS = ["Name", "State", "When", "Step", "Loss", ""];

    let list = null; // the newest answer
    let fetching = false;
    let chosen = ""; // the job whose button was pressed
    let running = null; // the job that the status shows
    let parts = null; // of the panel, once created
    const open = new Map(); // id of a job with open details -> its details, or null until they are loaded

    // Called by gradio when a hidden button is pressed.
    const withKey = () => page.guard.withKey("", chosen);

    function press(name, id) {
        chosen = id;
        page.dom.find(`#train_lora_queue_${name}`).click();
    }

    // Fills the form with a job's settings.
    function fill(name, id) {
        if (page.imagesArrivals.isArriving()) return;
        press(name, id);
        page.dom.find("#train_lora_form").scrollIntoView({behavior: "smooth"});
    }

    // A job's row, and its details while they are open.
    function rows({jobs}) {
        const last = jobs.filter((job) => job.place).length;
        return jobs.flatMap((job) => {
            const row = {key: job.id, make: page.queueJob.row, job, last, running, isOpen: open.has(job.id)};
            if (!row.isOpen) return [row];
            return [row, {key: `details of ${job.id}`, make: page.queueJob.details, details: open.get(job.id)}];
        });
    }

    function removeUnneeded({kept: {free}}) {
        if (confirm(page.words.say(REMOVE_UNNEEDED, {size: free}))) press("kept", "free");
    }

    function removeStates({kept: {asked, names}}) {
        const more = names.length > MOST_NAMES ? page.words.say(" and {count} more", {count: names.length - MOST_NAMES}) : "";
        const whose = names.slice(0, MOST_NAMES).join(", ") + more;
        if (confirm(page.words.say(REMOVE_STATES, {size: asked, names: whose}))) press("kept", "states");
    }

    function changeLimit({kept: {limit}}) {
        const said = prompt(page.words.say(HOW_MUCH), limit);
        if (said !== null) press("kept", said);
    }

    const button = (text, does, needed) => page.dom.button("train-lora-small", {text, press: does, needed});

    // What jobs keep on disk beside their LoRAs.
    function keptBar() {
        return page.dom.view("div", "train-lora-row-buttons", {
            attributes: () => ({id: "train_lora_kept"}),
            parts: [
                page.dom.view("span", "", {
                    attributes: ({kept}) => ({class: kept.over ? "train-lora-problem" : "train-lora-phase"}),
                    text: ({kept}) => page.words.say("Kept by jobs: {size} of {limit} GB", kept),
                }),
                button(({kept}) => page.words.say("Remove samples and latents ({free})", kept), removeUnneeded, ({kept}) => kept.can_free),
                button(({kept}) => page.words.say("Remove saved states ({asked})", kept), removeStates, ({kept}) => kept.can_ask),
                button(() => "Change limit", changeLimit),
            ],
            needed: ({jobs, kept}) => kept.can_free || kept.can_ask || kept.over || jobs.length > 0,
        });
    }

    function build() {
        const {view, line} = page.dom;
        const hint = "No jobs yet. If you press Train during a run, the new job waits here.";
        const head = view("tr", "", {items: () => COLUMNS, make: () => line("th", "", (text) => text)});
        return [
            line("div", "train-lora-problem", ({trouble}) => trouble, ({trouble}) => trouble !== ""),
            view("div", "train-lora-row-buttons", {
                parts: [
                    button(({held}) => (held ? "Start queue" : "Hold queue"), ({held}) => press(held ? "start" : "hold", "")),
                    line("span", "train-lora-phase", ({held}) => (held ? "Waiting jobs do not start." : "Jobs run one after the other.")),
                ],
                needed: ({jobs}) => jobs.some((job) => job.place),
            }),
            line("div", "train-lora-hint", () => hint, ({jobs}) => !jobs.length),
            view("table", "train-lora-jobs", {
                parts: [head], items: rows, make: ({make}) => make(), key: ({key}) => key, needed: ({jobs}) => jobs.length > 0,
            }),
            keptBar(),
        ];
    }

    function show() {
        const panel = page.dom.find("#train_lora_queue");
        if (!panel || !list) return;
        parts = parts || build();
        page.dom.fill(panel, parts, list);
        panel.dataset.revision = list.revision;
    }

    async function answer(path) {
        const response = await fetch(path, {cache: "no-store"});
        return response.ok ? response.json() : null;
    }

    async function readDetails(id) {
        const job = await answer(`${QUEUE}/${encodeURIComponent(id)}`);
        if (job && open.has(id)) open.set(id, job);
        if (!job) open.delete(id);
    }

    // Shows or hides a job's details.
    async function look(id) {
        if (!open.delete(id)) {
            open.set(id, null);
            await readDetails(id);
        }
        show();
    }

    async function refresh() {
        if (fetching) return;
        fetching = true;
        try {
            const found = await answer(QUEUE);
            if (found) {
                list = found;
                await Promise.all([...open.keys()].map(readDetails));
                show();
            }
        } catch (error) {
            console.warn("train-lora: the queue could not be loaded", error);
        }
        fetching = false;
    }

    // Updates the running row from the status, without loading the list.
    document.addEventListener("trainLoraStatus", ({detail}) => {
        running = detail.job;
        if (!list || list.revision !== detail.queue) refresh();
        else show();
    });

    onUiLoaded(() => {
        page.dom.watch("#train_lora_message", refresh);
        refresh();
    });

    return {fill, look, press, withKey};
})();
