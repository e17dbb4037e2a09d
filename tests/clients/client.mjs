// client.mjs TAP_FILE - the official Node client against running daemons.
//
// Runs where `openai` is installed; the daemons come in the environment as for client.py.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// This file lies outside of the folder that has node_modules, which npm made as the current one.
const require = createRequire(pathToFileURL(process.cwd() + '/'));
const OpenAI = require('openai');

const { GEMMAD_URL, GEMMAD_KEYED_URL, GEMMAD_TIGHT_URL, GEMMAD_KEY } = process.env;
const HELLO = [{ role: 'user', content: 'Hello!' }];
const STORY = [{ role: 'user', content: 'Tell me a story.' }];

const connect = (url, apiKey = 'none') =>
    new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, timeout: 60000 });
const client = connect(GEMMAD_URL);
const model = (await client.models.list()).data[0].id;

const chat = (more, options) => client.chat.completions.create(
    { model, messages: HELLO, temperature: 0, max_completion_tokens: 24, ...more }, options);
const complete = (more) => client.completions.create(
    { model, prompt: 'Once upon a time', temperature: 0, max_tokens: 16, ...more });

async function all(stream) {
    const chunks = [];
    for await (const c of await stream)
        chunks.push(c);
    return chunks;
}

const text = (chunks) => chunks.map((c) => c.choices[0]?.delta?.content ?? '').join('');

async function metric(url, name) {
    const page = await (await fetch(`${url}/metrics`)).text();
    return Number(page.split('\n').find((l) => l.startsWith(`${name} `)).split(' ')[1]);
}

async function waitUntilIdle(url) {
    for (let i = 0; i < 500; i++) {
        if (await metric(url, 'gemmad_requests_running') +
            await metric(url, 'gemmad_requests_waiting') === 0)
            return;
        await new Promise((done) => setTimeout(done, 20));
    }
    assert.fail('a sequence is still held');
}

const fails = (kind, check = () => {}) => (e) => {
    assert.equal(e.constructor.name, kind.name, e.message);
    check(e);
    return true;
};

const tests = {
    async 'models are listed and retrieved'() {
        const one = await client.models.retrieve(model);
        assert.equal(one.id, model);
        assert.equal(one.object, 'model');
    },

    async 'chat, whole and streamed'() {
        const whole = await chat();
        assert.equal(whole.object, 'chat.completion');
        assert.equal(whole.choices[0].message.role, 'assistant');
        assert.ok(whole.choices[0].message.content.length > 0);
        assert.equal(whole.usage.total_tokens,
            whole.usage.prompt_tokens + whole.usage.completion_tokens);
        const chunks = await all(chat({ stream: true, stream_options: { include_usage: true } }));
        assert.equal(text(chunks), whole.choices[0].message.content);
        assert.equal(chunks.at(-1).usage.total_tokens, whole.usage.total_tokens);
    },

    async 'completion, whole and streamed'() {
        const whole = await complete();
        const chunks = await all(complete({ stream: true }));
        assert.equal(whole.object, 'text_completion');
        assert.equal(chunks.map((c) => c.choices[0].text).join(''), whole.choices[0].text);
    },

    async 'the stream helper collects a message'() {
        const runner = client.chat.completions.stream(
            { model, messages: HELLO, temperature: 0, max_completion_tokens: 24 });
        const final = await runner.finalChatCompletion();
        assert.equal(final.choices[0].message.content, (await chat()).choices[0].message.content);
    },

    async 'n, seed and stop'() {
        const more = { messages: STORY, temperature: 1, seed: 3, n: 2 };
        const a = await chat(more), b = await chat(more);
        assert.deepEqual(a.choices.map((c) => c.message.content),
            b.choices.map((c) => c.message.content));
        assert.deepEqual(a.choices.map((c) => c.index), [0, 1]);
        const long = (await chat({ messages: STORY })).choices[0].message.content;
        const stop = long.slice(8, 12);
        const cut = (await chat({ messages: STORY, stop })).choices[0];
        assert.equal(cut.message.content, long.slice(0, long.indexOf(stop)));
        assert.equal(cut.finish_reason, 'stop');
    },

    async 'logprobs'() {
        const r = await chat({ logprobs: true, top_logprobs: 2 });
        for (const t of r.choices[0].logprobs.content) {
            assert.ok(t.logprob <= 0);
            assert.equal(t.top_logprobs.length, 2);
        }
    },

    async 'errors have the right class'() {
        await assert.rejects(chat({ temperature: 9 }), fails(OpenAI.BadRequestError, (e) => {
            assert.equal(e.status, 400);
            assert.equal(e.param, 'temperature');
        }));
        await assert.rejects(chat({ model: 'gpt-17' }), fails(OpenAI.NotFoundError, (e) => {
            assert.equal(e.code, 'model_not_found');
        }));
        await assert.rejects(connect(GEMMAD_KEYED_URL, 'wrong').models.list(),
            fails(OpenAI.AuthenticationError));
        assert.ok((await connect(GEMMAD_KEYED_URL, GEMMAD_KEY).models.list()).data.length > 0);
    },

    async 'a full queue is an internal server error with retry-after'() {
        // All at once: a stream begins with its first token, so a waiting one has not begun.
        const tight = connect(GEMMAD_TIGHT_URL);
        const ask = async () => {
            const stream = await tight.chat.completions.create({ model, messages: STORY,
                stream: true, max_completion_tokens: 1500, ignore_eos: true });
            stream.controller.abort();
        };
        const refused = (await Promise.allSettled(Array.from({ length: 6 }, ask)))
            .filter((r) => r.status === 'rejected').map((r) => r.reason);
        assert.ok(refused.length > 0 && refused.length < 6, `${refused.length} of 6 refused`);
        for (const e of refused) {
            assert.equal(e.constructor.name, 'InternalServerError', e.message);
            assert.equal(e.status, 503);
            assert.ok(Number(e.headers.get('retry-after')) >= 1);
        }
        await waitUntilIdle(GEMMAD_TIGHT_URL);
    },

    async 'an abort in mid-stream frees the sequence'() {
        const stream = await chat({ messages: STORY, stream: true, max_completion_tokens: 1800,
            ignore_eos: true });
        let seen = 0;
        for await (const _ of stream)
            if (++seen === 3)
                break; // leaving the loop aborts the request
        await waitUntilIdle(GEMMAD_URL);
    },
};

const out = [];
let failed = 0;
for (const [name, test] of Object.entries(tests)) {
    try {
        await test();
        out.push(`ok - ${name}`);
    } catch (e) {
        failed++;
        out.push(...String(e.stack).split('\n').slice(0, 6).map((l) => `# ${l}`), `not ok - ${name}`);
    }
}
fs.writeFileSync(process.argv[2], out.join('\n') + '\n');
process.exit(failed > 0 ? 1 : 0);
