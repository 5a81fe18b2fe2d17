// Requests to the extension's own API, which scripts can use too (`/lora-train/v1`).
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.api = (() => {
    const page = window.trainLora;
    const ROOT = "lora-train/v1";
    const GONE = "The webui does not answer; see whether it still runs.";

    // {ok, status, data, problems}: problems are sentences, each with the name of its option.
    async function ask(method, path, body, headers, read = (response) => response.json()) {
        const sent = {method, cache: "no-store", headers};
        if (body !== undefined) sent.body = body;
        const response = await fetch(`${ROOT}/${path}`, sent).catch(() => null);
        if (!response) return {ok: false, status: 0, data: null, problems: [{option: "", text: page.words.say(GONE)}]};
        if (response.status === 401) page.guard.lock();
        const data = await (response.ok ? read(response) : response.json()).catch(() => null);
        const problems = data?.problems && !response.ok ? data.problems : [];
        if (!response.ok && !problems.length) {
            problems.push({option: "", text: page.words.say("The webui answered {status}; reload the page.", {status: response.status})});
        }
        return {ok: response.ok, status: response.status, data, problems};
    }

    return {
        get: (path) => ask("GET", path),
        send: (method, path, body = {}) => ask(method, path, JSON.stringify(body), {"Content-Type": "application/json"}),
        upload: (path, file) => ask("POST", path, file, {"Content-Type": "application/octet-stream"}),
        put: (path, file) => ask("PUT", path, file, {"Content-Type": "application/octet-stream"}),
        blob: (path) => ask("GET", path, undefined, undefined, (response) => response.blob()),
        url: (path) => `${ROOT}/${path}`,
    };
})();
