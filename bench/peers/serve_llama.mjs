// A peer of bench/serve_cpu.py: llama.cpp through node-llama-cpp, streams as parallel sequences of one
// context, which it decodes together. Answers turns as bench/harness.py says. Nothing of a run is kept for
// the next one. Not here: what is compared and how (bench/serve_cpu.py).
//
// node serve_llama.mjs JOB.json FOLDER, the folder being the one that holds node_modules.

import {createRequire} from "node:module";
import {readFileSync} from "node:fs";
import {createInterface} from "node:readline";
import {resolve} from "node:path";
import {pathToFileURL} from "node:url";

const [jobFile, folder] = process.argv.slice(2);
const job = JSON.parse(readFileSync(jobFile, "utf8"));
const installed = resolve(folder, "node_modules", "node-llama-cpp");
const {version} = createRequire(import.meta.url)(resolve(installed, "package.json"));
const {getLlama} = await import(pathToFileURL(resolve(installed, "dist", "index.js")));

const llama = await getLlama({gpu: false, build: "never", maxThreads: job.threads, logger: (level, text) => process.stderr.write(`${text}\n`)});
const model = await llama.loadModel({modelPath: job.gguf});

/** Returns what does a case: continues all prompts at once by exactly so many tokens. */
async function prepare({prompts, new_tokens: newTokens}) {
    const longest = Math.max(...prompts.map((prompt) => prompt.length));
    const context = await model.createContext({
        sequences: prompts.length,
        contextSize: longest + newTokens + 8,
        batchSize: 2048,
        threads: {ideal: job.threads, min: job.threads}
    });
    const sequences = prompts.map(() => context.getSequence());
    return async () => {
        await Promise.all(sequences.map((sequence) => sequence.clearHistory()));
        await Promise.all(sequences.map(async (sequence, i) => {
            let made = 0;
            for await (const _ of sequence.evaluate(prompts[i], {temperature: 0, yieldEogToken: true})) {
                made += 1;
                if (made === newTokens) break;
            }
            if (made !== newTokens) throw new Error(`llama.cpp made ${made} tokens`);
        }));
    };
}

const warm = await prepare(job.warm);
const work = {};
for (const [name, asked] of Object.entries(job.cases)) work[name] = await prepare(asked);
for (const run of Object.values(work)) await run();  // The first run of a shape prepares it.
await warm();
const answer = (said) => process.stdout.write(JSON.stringify(said) + "\n");
const versions = {"node-llama-cpp": version, "llama.cpp": llama.llamaCppRelease?.release ?? "unknown", node: process.version};
answer({facts: {versions}, cases: Object.keys(work)});

for await (const line of createInterface({input: process.stdin})) {
    const runs = Number(line.split(" ", 1)[0]);
    const run = work[line.slice(line.indexOf(" ") + 1)];
    await warm();
    const seconds = [];
    for (let i = 0; i < runs; i++) {
        const start = process.hrtime.bigint();
        await run();
        seconds.push(Number(process.hrtime.bigint() - start) / 1e9);
    }
    answer({seconds, notes: seconds.map(() => ({})), peak_bytes: 0});
}
process.exit(0);
