// Queue and history, read from one route whenever the status has a new revision of the list.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.queue = (() => {
    const page = window.trainLora;
    const QUEUE = "train-lora/queue";

    let list = null; // the newest answer
    let fetching = false;
    let chosen = ""; // the job whose button was pressed
    let running = null; // the job that the status shows
    let panel = null; // the panel's parts, once created
    const open = new Map(); // id of a job with open details -> its details, or null until they are loaded

    // Called by gradio when a hidden button is pressed.
    const withKey = () => page.guard.withKey("", chosen);

    function press(name, id) {
        chosen = id;
        page.dom.find(`#train_lora_queue_${name}`).click();
    }

    // Fills the form with a job's settings.
    function fill(name, id) {
        if (page.uploads.isUploading()) return;
        press(name, id);
        page.dom.find("#train_lora_form").scrollIntoView({behavior: "smooth"});
    }

    function holdBar() {
        const node = page.dom.element("div", "train-lora-row-buttons");
        const button = page.dom.button("train-lora-small", () => press(list.held ? "start" : "hold", ""));
        const text = page.dom.element("span", "train-lora-phase");
        node.append(button.node, text);
        return {
            node,
            show({held}) {
                button.show(held ? "Start queue" : "Hold queue");
                page.dom.setText(text, held ? "Waiting jobs do not start." : "Jobs run one after the other.");
            },
        };
    }

    function head() {
        const node = page.dom.element("tr");
        for (const text of ["Name", "State", "When", "Step", "Loss", ""]) node.append(page.dom.element("th", "", text));
        return node;
    }

    function table() {
        const node = page.dom.element("table", "train-lora-jobs");
        const first = head();
        const rows = page.dom.keyed(({key}) => key, ({make}) => make());
        return {
            node,
            show({jobs}) {
                const last = jobs.filter((job) => job.place).length;
                const items = jobs.flatMap((job) => [
                    {key: job.id, make: page.queueRow.row, job, last, running, isOpen: open.has(job.id)},
                    ...(open.has(job.id) ? [{key: `details of ${job.id}`, make: page.queueDetails.row, details: open.get(job.id)}] : []),
                ]);
                page.dom.arrange(node, [first, ...rows(items)]);
            },
        };
    }

    function build() {
        const trouble = page.dom.element("div", "train-lora-problem");
        const hint = page.dom.element("div", "train-lora-hint", "No jobs yet. If you press Train during a run, the new job waits here.");
        return [
            {node: trouble, show: (shown) => page.dom.setText(trouble, shown.trouble), needed: (shown) => shown.trouble !== ""},
            {...holdBar(), needed: ({jobs}) => jobs.some((job) => job.place)},
            {node: hint, show: () => {}, needed: ({jobs}) => !jobs.length},
            {...table(), needed: ({jobs}) => jobs.length > 0},
            {...page.queueKept.bar(), needed: ({jobs, kept}) => kept.can_free || kept.can_ask || kept.over || jobs.length > 0},
        ];
    }

    function show() {
        const node = page.dom.find("#train_lora_queue");
        if (!node || !list) return;
        panel = panel || build();
        const needed = panel.filter((part) => part.needed(list));
        page.dom.keepingFocus(node, () => {
            for (const part of needed) part.show(list);
            page.dom.arrange(node, needed.map((part) => part.node));
        });
        node.dataset.revision = list.revision;
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
        if (open.has(id)) open.delete(id);
        else {
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
        const watch = {childList: true, subtree: true, characterData: true};
        new MutationObserver(refresh).observe(page.dom.find("#train_lora_message"), watch);
        refresh();
    });

    return {fill, look, press, withKey};
})();
