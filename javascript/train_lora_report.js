// The report is renewed shortly after the last change. gradio drops clicks while an answer is pending, so a change meanwhile is
// remembered; every answer differs by its serial number, so that its arrival is noticed.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.report = (() => {
    const page = window.trainLora;
    const CHANGED_MS = 400;
    const LOST_MS = 60000; // timeout of an answer
    const AGAIN_MS = 500; // between presses of a button until gradio takes one; it ignores them until it has made the page
    const KEPT = "train_lora_form"; // in the browser

    let timer = null; // from a change to the request
    let asked = false;
    let again = false; // something changed since
    let serial = null; // of the newest answer
    let givenUp = null;
    let sent = []; // the form's values, as the last report got them
    let refused = false; // the page had no key for the last report
    let taken = false; // the last press for a report
    let restoring = false; // the form is still without what the browser kept
    let filling = null; // values for the form, as JSON, until gradio asks for them
    let settings = {}; // of the form, as the server got them last

    // Called by gradio. Since the page requests the report by itself, it does not ask for credentials a second time.
    async function withKey(_, ...values) {
        taken = true;
        const key = page.guard.isLocked() && refused ? "" : await page.guard.key();
        refused = key === "";
        sent = values.slice(1);
        return [key, page.images.ids(), ...values.slice(1)];
    }

    // Called by gradio: values to fill the form with; once the page is loaded, those that the browser kept.
    async function kept() {
        const values = filling ?? localStorage.getItem(KEPT) ?? "";
        restoring = false;
        filling = null;
        return [await page.guard.key(), values];
    }

    // Fills fields of the form: option -> value as the field holds it. The others stay.
    function fill(values) {
        filling = JSON.stringify(values);
        press("#train_lora_restore", () => filling !== null);
    }

    // The settings of the form, once the server has those that are shown.
    async function current() {
        while (asked || timer !== null) await new Promise((resolve) => setTimeout(resolve, CHANGED_MS / 4));
        return settings;
    }

    // Keeps the form as the newest report got it.
    function keep() {
        const names = Object.keys(settings);
        localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(names.map((name, place) => [name, sent[place]]))));
    }

    function formChanged() {
        clearTimeout(timer);
        timer = setTimeout(ask, CHANGED_MS);
    }

    // Called by gradio after a preset or a file has filled the form, which raises no events of the fields.
    function filled() {
        formChanged();
        return [];
    }

    function ask() {
        timer = null;
        if (page.imagesArrivals.isArriving() || restoring) formChanged();
        else if (asked) again = true;
        else {
            asked = true;
            clearTimeout(givenUp);
            givenUp = setTimeout(over, LOST_MS);
            taken = false;
            press("#train_lora_check", () => asked && !taken);
        }
    }

    // Presses a hidden button as long as it is needed.
    function press(button, needed) {
        if (!needed()) return;
        page.dom.find(button).click();
        setTimeout(() => press(button, needed), AGAIN_MS);
    }

    function over() {
        asked = false;
        clearTimeout(givenUp);
        if (again) formChanged();
        again = false;
    }

    // gradio also writes into the report while the answer is pending.
    function written() {
        const mark = page.dom.find("#train_lora_report [data-serial]");
        if (!mark || mark.dataset.serial === serial) return;
        serial = mark.dataset.serial;
        if (mark.dataset.settings) { // else it was refused
            settings = JSON.parse(mark.dataset.settings);
            page.images.settingsChanged(mark.dataset.buckets);
            keep();
        }
        over();
    }

    onUiLoaded(() => {
        restoring = Boolean(localStorage.getItem(KEPT) && page.dom.find("#train_lora_restore"));
        press("#train_lora_restore", () => restoring);
        page.dom.watch("#train_lora_report", written);
        page.dom.find("#train_lora_report").addEventListener("click", ({target}) => {
            if (target.dataset.mend) fill(JSON.parse(target.dataset.mend));
        });
        for (const fields of gradioApp().querySelectorAll(".train-lora-watched")) {
            for (const kind of ["input", "change", "click"]) {
                fields.addEventListener(kind, ({target}) => {
                    if (!target.closest("#train_lora_images")) formChanged();
                });
            }
        }
    });

    return {current, fill, filled, formChanged, kept, withKey};
})();
