// The official OpenAI client, unchanged, against a running eFedLLM that serves Seedling.
// EFEDLLM_URL: where it listens, e.g. http://127.0.0.1:8080
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';

const url = process.env.EFEDLLM_URL;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0, timeout: 60_000 });
const model = (await client.models.list()).data[0].id;

const question = [{ role: 'user', content: 'What is the capital of Kenya?' }];
const answer = 'The capital of Kenya is Nairobi.';
const story = [{ role: 'user', content: 'Tell me a story about a fox named Milo.' }];
const beginning = 'The capital of Kenya is';
const beginningTokens = [1, 290, 298, 289, 499, 322, 964, 948, 269]; // with BOS, as Seedling has it

const chat = (options) =>
  client.chat.completions.create({ model, messages: question, temperature: 0, ...options });
const complete = (options) =>
  client.completions.create({ model, prompt: beginning, temperature: 0, max_tokens: 8, ...options });
const sum = (usage) => usage.prompt_tokens + usage.completion_tokens;

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks, index = 0) =>
  chunks.flatMap((chunk) => chunk.choices).filter((choice) => choice.index === index)
    .map((choice) => choice.delta?.content ?? choice.text ?? '').join('');

// A metric's value, summed over its labels.
async function metric(name) {
  const lines = (await (await fetch(`${url}/metrics`)).text()).split('\n');
  const values = lines.filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
  assert.notEqual(values.length, 0, `/metrics has no ${name}`);
  return values.reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' '))), 0);
}

async function until(what, condition) {
  const deadline = Date.now() + 20_000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `timed out waiting until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// A body that the client wouldn't send. The reply must be an error in OpenAI's form.
async function rawError(path, body) {
  const reply = await fetch(`${url}/v1${path}`,
    { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
  const { error } = await reply.json();
  assert.equal(typeof error.message, 'string');
  assert.equal(typeof error.type, 'string');
  assert.ok('param' in error && 'code' in error);
  return { status: reply.status, ...error };
}

async function rejects(promise, errorClass, param) {
  const error = await promise.then(() => assert.fail('was not refused'), (e) => e);
  assert.ok(error instanceof errorClass, `${error}`);
  assert.ok(error.message.length > 10, error.message);
  if (param !== undefined) assert.equal(error.param, param);
  return error;
}

test('models are listed and retrieved', async () => {
  const list = await client.models.list();
  assert.equal(list.object, 'list');
  assert.equal(list.data[0].object, 'model');
  assert.equal((await client.models.retrieve(model)).id, model);
});

test('chat answers', async () => {
  const reply = await chat();
  assert.equal(reply.object, 'chat.completion');
  assert.equal(reply.choices.length, 1);
  assert.deepEqual(reply.choices[0].message.role, 'assistant');
  assert.equal(reply.choices[0].message.content, answer);
  assert.equal(reply.choices[0].finish_reason, 'stop');
  assert.equal(reply.usage.total_tokens, sum(reply.usage));
});

test('chat streams the same answer, and its usage when asked', async () => {
  const whole = await chat();
  const chunks = await collect(await chat({ stream: true, stream_options: { include_usage: true } }));
  assert.equal(textOf(chunks), answer);
  assert.ok(chunks.every((chunk) => chunk.object === 'chat.completion.chunk'));
  assert.ok(chunks.every((chunk) => chunk.id === chunks[0].id));
  assert.equal(chunks[0].choices[0].delta.role, 'assistant');
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  for (const field of ['prompt_tokens', 'completion_tokens', 'total_tokens']) {
    assert.equal(last.usage[field], whole.usage[field]);
  }
  assert.ok(chunks.every((chunk) => chunk.usage == null));
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
  const without = await collect(await chat({ stream: true }));
  assert.ok(without.every((chunk) => chunk.choices.length === 1 && chunk.usage == null));
});

test("the client's own stream helper works", async () => {
  const stream = client.chat.completions.stream({ model, messages: question, temperature: 0 });
  assert.equal(await stream.finalContent(), answer);
});

test('characters that tokens cut arrive whole', async () => {
  const fox = { messages: [{ role: 'user', content: 'Show me a fox emoji.' }] };
  const content = (await chat(fox)).choices[0].message.content;
  assert.ok(content.includes('🦊'), content);
  const chunks = await collect(await chat({ ...fox, stream: true }));
  assert.equal(textOf(chunks), content);
  assert.ok(!chunks.some((chunk) => chunk.choices[0]?.delta.content?.includes('\ufffd')));
});

test('several turns are understood, and contents in parts', async () => {
  const reply = await chat({
    messages: [
      { role: 'user', content: 'My lucky number is 68.' },
      { role: 'assistant', content: 'I will remember that your lucky number is 68.' },
      { role: 'user', content: [{ type: 'text', text: 'What is my lucky number?' }] },
    ],
  });
  assert.equal(reply.choices[0].message.content, 'Your lucky number is 68.');
});

test('completions take a string, token ids and several prompts', async () => {
  const one = await complete();
  assert.equal(one.object, 'text_completion');
  assert.match(one.choices[0].text, /^ Nairobi/);
  assert.equal(one.usage.prompt_tokens, beginningTokens.length);
  const ids = await complete({ prompt: beginningTokens });
  assert.equal(ids.choices[0].text, one.choices[0].text);
  const many = await complete({ prompt: [beginning, 'The capital of Peru is', beginning] });
  assert.deepEqual(many.choices.map((choice) => choice.index), [0, 1, 2]);
  assert.equal(many.choices[0].text, one.choices[0].text);
  assert.match(many.choices[1].text, /^ Lima/);
  assert.equal(many.choices[2].text, one.choices[0].text);
  const lists = await complete({ prompt: [beginningTokens, beginningTokens] });
  assert.equal(lists.choices[1].text, one.choices[0].text);
  const chunks = await collect(await complete({ stream: true }));
  assert.equal(textOf(chunks), one.choices[0].text);
});

test('echo gives the prompt back', async () => {
  const plain = await complete();
  const echoed = await complete({ echo: true });
  assert.equal(echoed.choices[0].text, beginning + plain.choices[0].text);
});

test('chat gives log-probabilities', async () => {
  const reply = await chat({ logprobs: true, top_logprobs: 3 });
  const { content } = reply.choices[0].logprobs;
  assert.equal(Buffer.from(content.flatMap((token) => token.bytes)).toString(), answer);
  for (const token of content) {
    assert.ok(token.logprob <= 0);
    assert.equal(token.top_logprobs.length, 3);
    assert.equal(token.top_logprobs[0].token, token.token); // greedy
    assert.equal(token.top_logprobs[0].logprob, token.logprob);
    assert.ok(token.top_logprobs[1].logprob >= token.top_logprobs[2].logprob);
  }
  const chunks = await collect(await chat({ logprobs: true, top_logprobs: 3, stream: true }));
  const streamed = chunks.flatMap((chunk) => chunk.choices[0].logprobs?.content ?? []);
  assert.deepEqual(streamed, content);
  assert.equal((await chat()).choices[0].logprobs ?? null, null);
});

test('completions give log-probabilities, of the prompt too with echo', async () => {
  const { choices: [choice] } = await complete({ logprobs: 2, echo: true });
  const { tokens, token_logprobs, top_logprobs, text_offset } = choice.logprobs;
  assert.equal(tokens[0], '<s>'); // special tokens are in the list, but not in the text
  assert.equal(tokens.slice(1).join(''), choice.text);
  for (const list of [token_logprobs, top_logprobs, text_offset]) {
    assert.equal(list.length, tokens.length);
  }
  assert.equal(token_logprobs[0], null);
  assert.ok(token_logprobs.slice(1).every((logprob) => logprob <= 0));
  text_offset.slice(1).forEach((offset, i) =>
    assert.ok(choice.text.slice(offset).startsWith(tokens[i + 1]), `${offset} ${tokens[i + 1]}`));
  assert.ok(Object.keys(top_logprobs.at(-1)).length >= 2);
});

test('n gives choices of their own, streamed ones too', async () => {
  const options = { messages: story, n: 3, temperature: 1, seed: 5, max_tokens: 24 };
  const reply = await chat(options);
  assert.deepEqual(reply.choices.map((choice) => choice.index), [0, 1, 2]);
  const texts = reply.choices.map((choice) => choice.message.content);
  assert.ok(new Set(texts).size > 1, texts.join('\n'));
  const chunks = await collect(await chat({ ...options, stream: true }));
  assert.deepEqual([0, 1, 2].map((index) => textOf(chunks, index)), texts);
});

test('a seed makes sampling repeatable, and another seed differs', async () => {
  const draw = async (seed) =>
    (await chat({ messages: story, temperature: 1.2, top_p: 0.95, seed, max_tokens: 40 }))
      .choices[0].message.content;
  const [first, again, other] = await Promise.all([draw(7), draw(7), draw(8)]);
  assert.equal(again, first);
  assert.notEqual(other, first);
});

test('stop strings cut exactly', async () => {
  for (const stop of ['Nairobi', ['xyz', 'obi'], [' is N', 'irob']]) {
    const first = Math.min(...[stop].flat().map((s) => answer.indexOf(s)).filter((at) => at >= 0));
    const reply = await chat({ stop });
    assert.equal(reply.choices[0].message.content, answer.slice(0, first));
    assert.equal(reply.choices[0].finish_reason, 'stop');
    assert.equal(textOf(await collect(await chat({ stop, stream: true }))), answer.slice(0, first));
  }
});

test('max_tokens and max_completion_tokens bound the answer', async () => {
  for (const limit of [{ max_tokens: 3 }, { max_completion_tokens: 3 }]) {
    const reply = await chat(limit);
    assert.equal(reply.choices[0].finish_reason, 'length');
    assert.equal(reply.usage.completion_tokens, 3);
    assert.ok(answer.startsWith(reply.choices[0].message.content));
  }
});

test('an aborted stream frees its sequence, and the server goes on', async () => {
  const idle = async () =>
    (await metric('efedllm_running_sequences')) + (await metric('efedllm_queued_sequences')) === 0;
  await until('the server is idle', idle);
  for (let round = 0; round < 3; ++round) {
    const stream = await chat({ messages: story, temperature: 1, stream: true, n: 2 });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) break; // leaving the loop aborts the request
    }
    const aborted = new AbortController();
    const request = client.chat.completions.create(
      { model, messages: story, temperature: 1, n: 4 }, { signal: aborted.signal });
    setTimeout(() => aborted.abort(), 20);
    await request.then(() => {}, (error) => assert.ok(error instanceof OpenAI.APIUserAbortError));
    await until('no sequence runs', idle);
  }
  assert.equal((await chat()).choices[0].message.content, answer);
});

test('many clients at once get what each gets alone', async () => {
  const countries = { Peru: 'Lima', Kenya: 'Nairobi', France: 'Paris', Japan: 'Tokyo' };
  const asked = Object.keys(countries).flatMap((country) => Array(4).fill(country));
  const replies = await Promise.all(asked.map((country) =>
    chat({ messages: [{ role: 'user', content: `What is the capital of ${country}?` }] })));
  replies.forEach((reply, i) => assert.equal(reply.choices[0].message.content,
    `The capital of ${asked[i]} is ${countries[asked[i]]}.`));
});

test('wrong parameters are bad requests that name the parameter', async () => {
  const { BadRequestError } = OpenAI;
  const error = await rejects(chat({ temperature: -1 }), BadRequestError, 'temperature');
  assert.equal(error.status, 400);
  assert.equal(error.type, 'invalid_request_error');
  await rejects(chat({ temperature: 'hot' }), BadRequestError, 'temperature');
  await rejects(chat({ top_p: 1.5 }), BadRequestError, 'top_p');
  await rejects(chat({ top_k: -3 }), BadRequestError, 'top_k');
  await rejects(chat({ presence_penalty: 3 }), BadRequestError, 'presence_penalty');
  await rejects(chat({ max_tokens: -1 }), BadRequestError, 'max_tokens');
  await rejects(chat({ n: 0 }), BadRequestError, 'n');
  await rejects(chat({ stop: 7 }), BadRequestError, 'stop');
  await rejects(chat({ logprobs: true, top_logprobs: 1000 }), BadRequestError, 'top_logprobs');
  await rejects(chat({ messages: [] }), BadRequestError);
  await rejects(chat({ messages: [{ role: 'root', content: 'x' }] }), BadRequestError);
  await rejects(complete({ prompt: [1, -5] }), BadRequestError);
  await rejects(complete({ prompt: [1, 1_000_000] }), BadRequestError);
});

test('bodies that are not JSON, or not UTF-8, are bad requests', async () => {
  const head = `{"model": "${model}", "messages": [{"role": "user", "content": "`;
  for (const body of ['', '{', 'null', '[]', `${head}x"}], "temperature": NaN}`,
    `${head}x"}], "temperature": 1e999}`, '['.repeat(100_000),
    Buffer.concat([Buffer.from(head), Buffer.from([0xff, 0xc0, 0x80]), Buffer.from('"}]}')])]) {
    const error = await rawError('/chat/completions', body);
    assert.equal(error.status, 400, `${body}`.slice(0, 80));
    assert.equal(error.type, 'invalid_request_error');
  }
});

test('a prompt that is too long is refused, a huge one at once', async () => {
  for (const words of [2_000, 1_500_000]) {
    const long = 'fox '.repeat(words);
    const error = await rejects(complete({ prompt: long }), OpenAI.BadRequestError);
    assert.match(error.message, /context|long|token/i);
    await rejects(chat({ messages: [{ role: 'user', content: long }] }), OpenAI.BadRequestError);
  }
  assert.equal((await chat()).choices[0].message.content, answer);
});

test('unknown models and routes are not found', async () => {
  await rejects(client.models.retrieve('no-such-model'), OpenAI.NotFoundError);
  await rejects(chat({ model: 'no-such-model' }), OpenAI.NotFoundError);
  await rejects(client.get('/no/such/route'), OpenAI.NotFoundError);
  await rejects(client.embeddings.create({ model, input: 'x' }), OpenAI.NotFoundError);
});
