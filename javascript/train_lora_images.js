// The Images room: the datasets in work, one of images and one of regularisation images, what of one is shown, and its state from
// the server. Other rooms show it.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.images = (() => {
    const page = window.trainLora;
    // in the browser, so that a reload finds the datasets again
    const KEPT = {images: "train_lora_dataset", reg: "train_lora_reg_dataset"};
    const LOOKING_MS = 700; // between polls while images are being looked at

    const chosen = {images: "", reg: ""}; // ids
    let kind = "images"; // that is shown
    let asked = {page: 1, show: "all", text: "", sort: "name"};
    let shown = null; // the server's last answer
    let timer = null;
    let framedBy = null; // the settings by which images were shown last
    const making = {images: null, reg: null}; // the new dataset that is on its way
    let newest = 0; // number of the last request, so that an older answer is not shown
    let refreshed = null; // when that is answered

    const id = (of = kind) => chosen[of];
    const path = (rest = "") => `datasets/${id()}${rest}`;

    // Both as events take them.
    const ids = () => (chosen.reg ? `${chosen.images}|${chosen.reg}` : chosen.images);

    function problems(texts) {
        page.imagesPanel.problems(texts.map(({text}) => text));
    }

    // Shows the dataset as it is now; over once the newest request is answered.
    function refresh() {
        refreshed = load();
        return refreshed;
    }

    async function load() {
        clearTimeout(timer);
        if (!id()) {
            newest += 1;
            shown = null;
            page.imagesPanel.show(null, asked);
            return;
        }
        newest += 1;
        const number = newest;
        const query = new URLSearchParams({...asked, ...(framedBy ? {settings: framedBy} : {})});
        const answer = await page.api.get(path(`?${query}`));
        if (number !== newest) {
            await refreshed;
            return;
        }
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

    function choose(wanted, of = kind) {
        chosen[of] = wanted;
        if (wanted) localStorage.setItem(KEPT[of], wanted);
        else localStorage.removeItem(KEPT[of]);
        page.report.formChanged();
        return of === kind ? anew() : null;
    }

    function anew() {
        asked = {...asked, page: 1, show: "all", text: ""};
        return refresh();
    }

    // Shows the other kind of dataset.
    async function turn(to) {
        if (to === kind) return;
        kind = to;
        shown = null;
        problems([]);
        page.imagesPanel.show(null, asked);
        await Promise.all([page.imagesDatasets.refresh(), anew()]);
    }

    // The id of a new dataset in work; "" if there is none.
    async function made(of) {
        const answer = await page.api.send("POST", "datasets");
        if (!answer.ok) {
            problems(answer.problems);
            return "";
        }
        await choose(answer.data.id, of);
        await page.imagesDatasets.refresh();
        return answer.data.id;
    }

    // The id of the dataset in work; a new one if there is none. Two drops at once make one.
    async function needed() {
        const of = kind;
        if (id(of)) return id(of);
        making[of] ||= made(of).finally(() => { making[of] = null; });
        return making[of];
    }

    // A change of the dataset: tells problems, shows the dataset as it is now, and says what was done, which can be undone.
    async function change(method, rest, body) {
        const before = shown?.undo;
        const answer = await page.api.send(method, path(rest), body);
        problems(answer.problems);
        await refresh();
        const done = answer.ok && rest !== "/undo" && shown?.undo !== before;
        if (done && shown?.undo) page.imagesPanel.say(page.words.say("Done: {undo}", shown));
        page.report.formChanged();
        return answer;
    }

    // Called by gradio once a job has filled the form, which then names the job's own images.
    function filled() {
        for (const of of Object.keys(KEPT)) choose("", of);
        page.imagesDatasets.refresh();
        return page.report.filled();
    }

    // Those that are shown, on all pages, as requests name them: some filters depend on the form.
    function those() {
        const {show, text} = asked;
        return {show, text, settings: framedBy || ""};
    }

    // The frames, and the counts of tokens, depend on the form.
    function settingsChanged(settings) {
        if (settings === framedBy) return;
        framedBy = settings;
        refresh();
    }

    onUiLoaded(() => {
        for (const [of, name] of Object.entries(KEPT)) chosen[of] = localStorage.getItem(name) || "";
        page.imagesDatasets.refresh();
        refresh();
    });
    document.addEventListener("visibilitychange", () => {
        if (!document.hidden && shown && shown.looked.done < shown.looked.total) refresh();
    });

    return {
        change, choose, filled, id, ids, look, needed, path, problems, refresh, settingsChanged, turn,
        asked: () => asked, those, data: () => shown, kind: () => kind,
    };
})();
