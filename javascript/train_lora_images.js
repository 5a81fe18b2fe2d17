// The Images room: the dataset in work, what of it is shown, and its state from the server. Other rooms show it.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.images = (() => {
    const page = window.trainLora;
    const KEPT = "train_lora_dataset"; // in the browser, so that a reload finds the dataset again
    const LOOKING_MS = 700; // between polls while images are being looked at

    let dataset = ""; // id
    let asked = {page: 1, show: "all", text: "", sort: "name"};
    let shown = null; // the server's last answer
    let timer = null;
    let framedBy = null; // the settings by which images were shown last
    let newest = 0; // number of the last request, so that an older answer is not shown

    const path = (rest = "") => `datasets/${dataset}${rest}`;

    function problems(texts) {
        page.imagesPanel.problems(texts.map(({text}) => text));
    }

    async function refresh() {
        clearTimeout(timer);
        if (!dataset) {
            shown = null;
            page.imagesPanel.show(null, asked);
            return;
        }
        newest += 1;
        const number = newest;
        const query = new URLSearchParams({...asked, ...(framedBy ? {settings: framedBy} : {})});
        const answer = await page.api.get(path(`?${query}`));
        if (number !== newest) return;
        if (answer.status === 404) {
            choose("");
            return;
        }
        if (!answer.ok) {
            problems(answer.problems);
            return;
        }
        shown = answer.data;
        page.imagesPanel.show(shown, asked);
        if (shown.looked.done < shown.looked.total && !document.hidden) timer = setTimeout(refresh, LOOKING_MS);
        else if (shown.looked.total) page.report.formChanged();
    }

    // What is shown of the dataset: {page, show, text, sort}.
    function look(wanted) {
        asked = {...asked, page: 1, ...wanted};
        return refresh();
    }

    function choose(id) {
        dataset = id;
        if (id) localStorage.setItem(KEPT, id);
        else localStorage.removeItem(KEPT);
        asked = {...asked, page: 1, show: "all", text: ""};
        page.report.formChanged();
        return refresh();
    }

    // The id of the dataset in work; a new one if there is none.
    async function needed(name) {
        if (dataset) return dataset;
        const answer = await page.api.send("POST", "datasets", name ? {name} : {});
        if (!answer.ok) {
            problems(answer.problems);
            return "";
        }
        await choose(answer.data.id);
        await page.imagesDatasets.refresh();
        return dataset;
    }

    // A change of the dataset: tells problems, and shows the dataset as it is now.
    async function change(method, rest, body) {
        const answer = await page.api.send(method, path(rest), body);
        problems(answer.problems);
        await refresh();
        page.report.formChanged();
        return answer;
    }

    // Called by gradio once a job has filled the form, which then names the job's own images.
    function filled() {
        choose("");
        page.imagesDatasets.refresh();
        return page.report.filled();
    }

    // The frames, and the counts of tokens, depend on the form.
    function settingsChanged(settings) {
        if (settings === framedBy) return;
        framedBy = settings;
        refresh();
    }

    onUiLoaded(() => {
        dataset = localStorage.getItem(KEPT) || "";
        page.imagesDatasets.refresh();
        refresh();
    });
    document.addEventListener("visibilitychange", () => {
        if (!document.hidden && shown && shown.looked.done < shown.looked.total) refresh();
    });

    return {change, choose, filled, look, needed, path, problems, refresh, settingsChanged, asked: () => asked, settings: () => framedBy || "", id: () => dataset, data: () => shown};
})();
