// Files that arrive: dropped anywhere on the room, chosen, or pasted. They are sent a few at a time, with a count.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesArrivals = (() => {
    const page = window.trainLora;
    const AT_ONCE = 3;
    const REFRESH_MS = 500;
    const MOST = 20000;

    const CAPTION = /\.(txt|caption)$/i;

    const images = []; // that wait, and other files
    const captions = []; // follow when all images are there, since an image may get another name
    const told = []; // problems of this arrival
    let running = 0;
    let imagesOnTheWay = 0;
    let done = 0;
    let total = 0;
    let seen = 0; // when the room was last shown anew

    const isArriving = () => running > 0 || images.length > 0 || captions.length > 0;

    function progress() {
        page.imagesPanel.arriving(isArriving() ? page.words.say("Receiving {done} of {total} files", {done, total}) : "");
        const train = page.dom.find("#train_lora_train");
        if (train) train.disabled = isArriving();
    }

    async function sendOne(dataset, file) {
        const counts = CAPTION.test(file.name) ? 0 : 1;
        imagesOnTheWay += counts;
        const answer = await page.api.upload(`datasets/${dataset}/files?${new URLSearchParams({name: file.name})}`, file);
        imagesOnTheWay -= counts;
        told.push(...(answer.ok ? answer.data.problems.map((text) => ({text})) : answer.problems));
    }

    function shown() {
        progress();
        page.images.problems(told);
        if (Date.now() - seen < REFRESH_MS) return;
        seen = Date.now();
        page.images.refresh();
    }

    async function sendAll(dataset) {
        for (;;) {
            const file = images.shift() || (imagesOnTheWay ? undefined : captions.shift());
            if (!file) return;
            await sendOne(dataset, file);
            done += 1;
            shown();
        }
    }

    async function send(files) {
        const dataset = files.length ? await page.images.needed() : "";
        if (!dataset) return;
        if (!isArriving()) {
            done = total = told.length = 0;
        }
        const taken = files.slice(0, MOST);
        if (taken.length < files.length) told.push({text: page.words.say("Only the first {most} files are taken; drop the others later.", {most: MOST})});
        for (const file of taken) (CAPTION.test(file.name) ? captions : images).push(file);
        total += taken.length;
        progress();
        const begin = async () => {
            running += 1;
            try {
                await sendAll(dataset);
            } finally {
                running -= 1;
            }
        };
        await Promise.all(Array.from({length: Math.max(AT_ONCE - running, 0)}, begin));
        progress();
        if (!isArriving()) await page.images.refresh();
    }

    // The files of a dropped entry; a folder gives all files below it.
    async function filesOf(entry, found) {
        if (found.length > MOST) return;
        if (entry.isFile) {
            const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
            if (file) found.push(file);
            return;
        }
        const reader = entry.createReader();
        for (;;) {
            const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
            if (!some.length) return;
            for (const inner of some) await filesOf(inner, found);
        }
    }

    async function dropped(event) {
        const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
        const files = [...event.dataTransfer.files];
        const found = [];
        for (const entry of entries) await filesOf(entry, found);
        await send(entries.length ? found : files);
    }

    const carriesFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");

    // A file dropped beside the room would be opened by the browser in place of the webui.
    function watch(room) {
        const tab = room.closest("#tab_train_lora") || room;
        for (const kind of ["dragover", "dragenter"]) {
            tab.addEventListener(kind, (event) => {
                if (!carriesFiles(event)) return;
                event.preventDefault();
                room.classList.add("train-lora-over-room");
            });
        }
        tab.addEventListener("dragleave", (event) => {
            if (!tab.contains(event.relatedTarget)) room.classList.remove("train-lora-over-room");
        });
        tab.addEventListener("drop", (event) => {
            if (!carriesFiles(event)) return;
            event.preventDefault();
            room.classList.remove("train-lora-over-room");
            dropped(event);
        });
        document.addEventListener("paste", (event) => {
            const files = [...(event.clipboardData?.files || [])];
            if (!files.length || !room.offsetParent) return;
            event.preventDefault();
            send(files);
        });
    }

    return {isArriving, send, watch};
})();
