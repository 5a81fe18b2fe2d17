// The page's own sentences in the webui's language. The webui's dictionary (`localizations/` of all extensions) has English texts
// as keys. The webui itself replaces text nodes that are a key; here are sentences with values, and attributes.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.words = (() => {
    // The translation of an English text, or the text itself.
    function exact(text) {
        const known = window.localization;
        return known && Object.hasOwn(known, text) ? known[text] : text;
    }

    // The translation of a sentence whose `{names}` stand for values.
    function say(template, values = {}) {
        return exact(template).replace(/\{(\w+)\}/g, (hole, name) => (Object.hasOwn(values, name) ? String(values[name]) : hole));
    }

    return {exact, say};
})();
