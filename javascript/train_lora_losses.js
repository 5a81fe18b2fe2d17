// The losses of a run as the page has read them, and their mean.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.losses = (() => {
    const KEPT = 0.95; // of the mean, at every step

    function start(id) {
        return {id, losses: [], means: [], mean: 0, low: Infinity, high: -Infinity};
    }

    // An exponential mean with the bias of its start taken out. null is no number; a note says which step.
    function take(run, losses) {
        for (const told of losses) {
            const loss = told === null ? run.losses[run.losses.length - 1] || 0 : told;
            run.losses.push(loss);
            run.mean = KEPT * run.mean + (1 - KEPT) * loss;
            run.means.push(run.mean / (1 - KEPT ** run.losses.length));
            run.low = Math.min(run.low, loss);
            run.high = Math.max(run.high, loss);
        }
    }

    return {start, take};
})();
