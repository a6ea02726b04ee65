// tus-js-client in Node, set up as the Backend.AI web UI sets it up: `endpoint` and `uploadUrl` are the same URL.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as tus from 'tus-js-client'
import { breakingRelay, client, Folder, forge, noise, sha256 } from './support.mjs'

const CHUNK = 15 * 1024 * 1024
const folder = await Folder.create()

/** Runs an upload to its end; `tune` may add options or steer the running upload. */
function upload(url, data, options = {}, steer = () => {}) {
  return new Promise((resolve, reject) => {
    const running = new tus.Upload(Buffer.from(data), {
      endpoint: url,
      uploadUrl: url,
      chunkSize: CHUNK,
      retryDelays: [0, 100, 300],
      onSuccess: () => resolve(running),
      onError: reject,
      ...options,
    })
    steer(running)
    running.start()
  })
}

/** The requests that an upload makes, as "METHOD offset". */
function recorder() {
  const requests = []
  return {
    requests,
    onBeforeRequest: (request) =>
      requests.push([request.getMethod(), request.getHeader('Upload-Offset')].filter(Boolean).join(' ')),
  }
}

for (const size of [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 40 << 20]) {
  test(`uploads ${size} bytes`, async () => {
    const data = noise(size, size)
    await upload(await folder.uploadUrl(`size-${size}.bin`, size), data)
    assert.equal(await folder.digest(`size-${size}.bin`), sha256(data))
  })
}

test('an upload starts with HEAD and goes on in chunks', async () => {
  const { requests, onBeforeRequest } = recorder()
  const data = noise(2, CHUNK + 5)
  await upload(await folder.uploadUrl('requests.bin', CHUNK + 5), data, { onBeforeRequest })
  assert.deepEqual(requests, ['HEAD', 'PATCH 0', `PATCH ${CHUNK}`])
})

test('a paused upload resumes where it stopped', async () => {
  const data = noise(3, 60 << 20)
  const { requests, onBeforeRequest } = recorder()
  const url = await folder.uploadUrl('paused.bin', data.length)
  let paused = false
  await upload(url, data, { onBeforeRequest }, (running) => {
    running.options.onProgress = (sent) => {
      if (paused || sent < 20 << 20) return
      paused = true
      running.abort().then(() => setTimeout(() => running.start(), 200))
    }
  })
  assert.ok(paused)
  assert.equal(requests.filter((each) => each === 'HEAD').length, 2)
  const first = requests[requests.lastIndexOf('HEAD') + 1]
  assert.ok(Number(first.split(' ')[1]) >= CHUNK, `resumed with ${first}`)
  assert.equal(await folder.digest('paused.bin'), sha256(data))
})

test('an upload survives a broken connection', async () => {
  const data = noise(4, 40 << 20)
  const relay = await breakingRelay(await folder.uploadUrl('broken.bin', data.length), 20 << 20)
  await upload(relay.url, data).finally(relay.close)
  assert.equal(relay.broken, 1)
  assert.equal(await folder.digest('broken.bin'), sha256(data))
})

test('300 files in parallel, one session each', async () => {
  const files = Array.from({ length: 300 }, (_, index) => ({ name: `many/${index}.bin`, data: noise(index, index * 331) }))
  const queue = [...files]
  const work = async () => {
    for (let file = queue.shift(); file; file = queue.shift()) {
      await upload(await folder.uploadUrl(file.name, file.data.length), file.data)
    }
  }
  await Promise.all(Array.from({ length: 8 }, work))
  for (const { name, data } of files) assert.equal(await folder.digest(name), sha256(data), name)
})

test('an upload can be ended for good', async () => {
  const data = noise(5, CHUNK + 5)
  const url = await folder.uploadUrl('ended.bin', data.length)
  let ended
  await new Promise((resolve) => {
    const running = new tus.Upload(Buffer.from(data), {
      endpoint: url,
      uploadUrl: url,
      chunkSize: CHUNK,
      onChunkComplete: () => {
        ended = running.abort(true)
        resolve()
      },
    })
    running.start()
  })
  await ended
  assert.ok([404, 410].includes((await fetch(url, { method: 'HEAD' })).status))
})

test('creation is answered with 405', async () => {
  const attempt = upload(`${client}/upload`, noise(6, 10), { uploadUrl: null, retryDelays: [] })
  await assert.rejects(attempt, (error) => error.originalResponse.getStatus() === 405)
})

test('an expired token ends the upload with a readable reply', async () => {
  const url = forge(await folder.uploadUrl('expired.bin', 10), { exp: Math.floor(Date.now() / 1000) - 10 })
  assert.equal((await fetch(url, { method: 'HEAD' })).status, 400)
  // The client then tries to create a new upload at the same URL, and reports the answer to that.
  await assert.rejects(upload(url, noise(7, 10)), (error) => error.originalResponse.getStatus() === 405)
})
