// Files that arrive: dropped anywhere on the room, chosen, or pasted. They are sent a few at a time, with a count.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.imagesArrivals = (() => {
    const page = window.trainLora;
    const AT_ONCE = 3;
    const REFRESH_MS = 500;
    const MOST = 20000;
    const MOST_NAMED = 5;

    const CAPTION = /\.(txt|caption)$/i;

    let images = []; // {dataset, file, folder, reg: of regularisation images} that wait, and other files
    let captions = []; // follow when all images are there, since an image may get another name
    let told = []; // problems of this arrival
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

    function tell(problems) {
        const known = new Set(told.map(({text}) => text));
        told.push(...problems.filter(({text}) => !known.has(text)));
    }

    function tellUnread(names) {
        const named = names.slice(0, MOST_NAMED).join(", ");
        if (named) tell([{text: page.words.say("The browser cannot read {names}; check the permissions.", {names: named})}]);
    }

    async function sendOne({dataset, file, folder, reg}) {
        const counts = CAPTION.test(file.name) ? 0 : 1;
        imagesOnTheWay += counts;
        const answer = await page.api.upload(`datasets/${dataset}/files?${new URLSearchParams({name: file.name, ...(folder && {folder}), ...(reg && {reg})})}`, file);
        imagesOnTheWay -= counts;
        tell(answer.ok ? answer.data.problems.map((text) => ({text})) : answer.problems);
        if (answer.status === 404) forget(dataset);
    }

    // A dataset that is gone takes nothing any more.
    function forget(gone) {
        const before = images.length + captions.length;
        images = images.filter(({dataset}) => dataset !== gone);
        captions = captions.filter(({dataset}) => dataset !== gone);
        total -= before - images.length - captions.length;
    }

    function shown() {
        progress();
        page.images.problems(told);
        if (Date.now() - seen < REFRESH_MS) return;
        seen = Date.now();
        page.images.refresh();
    }

    async function sendAll() {
        for (;;) {
            const next = images.shift() || (imagesOnTheWay ? undefined : captions.shift());
            if (!next) return;
            await sendOne(next);
            done += 1;
            shown();
        }
    }

    function begin() {
        done = total = 0;
        told = [];
    }

    function take(files, to) {
        const taken = files.slice(0, MOST);
        if (taken.length < files.length) tell([{text: page.words.say("Only the first {most} files are taken; drop the others later.", {most: MOST})}]);
        for (const file of taken) (CAPTION.test(file.name) ? captions : images).push({...to, file});
        total += taken.length;
    }

    // `unread`: names of files that the browser does not give.
    async function send(files, unread = []) {
        const folder = page.imagesPanel.folder();
        const reg = page.images.kind() === "reg";
        const dataset = files.length ? await page.images.needed() : "";
        if (!isArriving()) begin();
        tellUnread(unread);
        if (told.length) page.images.problems(told);
        if (!dataset) return;
        take(files, {dataset, folder, reg});
        progress();
        const work = async () => {
            running += 1;
            try {
                await sendAll();
            } finally {
                running -= 1;
            }
        };
        await Promise.all(Array.from({length: Math.max(AT_ONCE - running, 0)}, work));
        progress();
        if (!isArriving()) await page.images.refresh();
    }

    async function fileOf(entry, found, unread) {
        const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
        if (file) found.push(file);
        else unread.push(entry.name);
    }

    // The files of a dropped entry; a folder gives all files below it.
    async function filesOf(entry, found, unread) {
        if (found.length > MOST) return;
        if (entry.isFile) {
            await fileOf(entry, found, unread);
            return;
        }
        const reader = entry.createReader();
        for (;;) {
            const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
            if (!some.length) return;
            for (const inner of some) await filesOf(inner, found, unread);
        }
    }

    async function dropped(event) {
        const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
        const files = [...event.dataTransfer.files];
        const found = [];
        const unread = [];
        for (const entry of entries) await filesOf(entry, found, unread);
        await send(entries.length ? found : files, unread);
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
