// tus-js-client and fetch() in headless Chromium, in a page that comes from another origin than the agent.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { Folder, forge, noise, noiseSource, sha256 } from './support.mjs'

const bundle = readFileSync(path.join(import.meta.dirname, 'node_modules/tus-js-client/dist/tus.min.js'), 'utf8')
const scripts = { '/tus.js': bundle, '/noise.js': noiseSource, '/page.js': readFileSync(path.join(import.meta.dirname, 'page.js'), 'utf8') }
const html = `<!doctype html><title>uploads</title>${Object.keys(scripts).map((name) => `<script src="${name}"></script>`).join('')}`

const scratch = mkdtempSync(path.join(tmpdir(), 'storage-agent-browser-'))
const folder = await Folder.create()
let browser
let server
let page

before(async () => {
  server = http.createServer((request, reply) => {
    const script = scripts[request.url]
    reply.setHeader('Content-Type', script ? 'text/javascript' : 'text/html')
    reply.end(script ?? html)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const quiet = ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
  browser = await chromium.launchPersistentContext(path.join(scratch, 'profile'), {
    executablePath: '/usr/bin/chromium',
    headless: true,
    args: ['--no-sandbox', ...quiet],
  })
  page = await open()
})

after(async () => {
  await browser?.close()
  server?.close()
  rmSync(scratch, { recursive: true, force: true })
})

async function open() {
  const fresh = await browser.newPage()
  fresh.on('pageerror', (error) => console.error('page:', error))
  // `localhost` and not the agent's 127.0.0.1: another host besides another port.
  await fresh.goto(`http://localhost:${server.address().port}/`)
  return fresh
}

/** Calls a function of page.js. */
const inPage = (name, argument, where = page) => where.evaluate(([call, value]) => window[call](value), [name, argument])

for (const size of [0, 1, 40 << 20]) {
  test(`uploads ${size} bytes`, async () => {
    const url = await folder.uploadUrl(`size-${size}.bin`, size)
    assert.deepEqual(await inPage('upload', { url, seed: size, size }), { done: true })
    assert.equal(await folder.digest(`size-${size}.bin`), sha256(noise(size, size)))
  })
}

test('a paused upload resumes where it stopped', async () => {
  const size = 60 << 20
  const url = await folder.uploadUrl('paused.bin', size)
  const { offsets } = await inPage('uploadWithPause', { url, seed: 1, size, pauseAt: 20 << 20 })
  assert.equal(offsets.length, 2)
  assert.equal(offsets[0], 0)
  assert.ok(offsets[1] >= 15 << 20, `resumed at ${offsets[1]}`)
  assert.equal(await folder.digest('paused.bin'), sha256(noise(1, size)))
})

test('a closed page is no obstacle to the next one', async () => {
  const size = 60 << 20
  const url = await folder.uploadUrl('reopened.bin', size)
  const first = await open()
  await inPage('uploadUntil', { url, seed: 2, size, stopAt: 20 << 20 }, first)
  await first.close()
  const second = await open()
  assert.deepEqual(await inPage('upload', { url, seed: 2, size }, second), { done: true })
  await second.close()
  assert.equal(await folder.digest('reopened.bin'), sha256(noise(2, size)))
})

test('300 files in parallel, one session each', async () => {
  const files = []
  for (let index = 0; index < 300; index += 1) {
    const size = index * 331
    files.push({ url: await folder.uploadUrl(`many/${index}.bin`, size), seed: index, size })
  }
  assert.deepEqual(await inPage('uploadAll', { files, workers: 6 }), { failed: [] })
  for (const { seed, size } of files) assert.equal(await folder.digest(`many/${seed}.bin`), sha256(noise(seed, size)))
})

test('a folder keeps its subdirectories', async () => {
  const names = ['project/readme.md', 'project/src/main.py', 'project/src/lib/util/deep.py', 'project/data/empty.csv']
  const files = []
  for (const [seed, name] of names.entries()) {
    const size = name.includes('empty') ? 0 : 1000 + seed
    files.push({ url: await folder.uploadUrl(name, size), seed, size, name })
  }
  assert.deepEqual(await inPage('uploadAll', { files, workers: 4 }), { failed: [] })
  for (const { name, seed, size } of files) assert.equal(await folder.digest(name), sha256(noise(seed, size)), name)
})

test('the page can read why a token is refused', async () => {
  const url = forge(await folder.uploadUrl('expired.bin', 10), { exp: Math.floor(Date.now() / 1000) - 10 })
  for (const method of ['HEAD', 'PATCH']) {
    const size = method === 'HEAD' ? 0 : 10
    assert.equal((await inPage('request', { url, method, size })).status, 400, method)
  }
  // After the refused HEAD the client tries to create an upload, and shows the answer to that.
  assert.deepEqual(await inPage('upload', { url, seed: 3, size: 10 }), { done: false, status: 405 })
})

test('the page can read that a session is unknown', async () => {
  const url = forge(await folder.uploadUrl('unknown.bin', 10), { session: '0'.repeat(32) })
  assert.equal((await inPage('request', { url, method: 'HEAD' })).status, 404)
})

test('the page can read that an offset is wrong, and the right one', async () => {
  const url = await folder.uploadUrl('offset.bin', 10)
  const reply = await inPage('request', { url, method: 'PATCH', size: 5, headers: { 'Upload-Offset': '5' } })
  assert.equal(reply.status, 409)
  assert.equal(reply.headers['upload-offset'], '0')
})

test('the page can read that a body is too long', async () => {
  const url = await folder.uploadUrl('long.bin', 10)
  const reply = await inPage('request', { url, method: 'PATCH', size: 2000, headers: { 'Upload-Offset': '0' } })
  assert.equal(reply.status, 413)
})

const EXPOSED = ['accept-ranges', 'content-disposition', 'content-length', 'etag', 'last-modified']

test('the page downloads a file and reads its headers', async () => {
  const data = noise(8, 1 << 20)
  await inPage('upload', { url: await folder.uploadUrl('page.bin', data.length), seed: 8, size: data.length })
  const reply = await inPage('download', { url: await folder.downloadUrl('page.bin', { archive: 'false' }) })
  assert.equal(reply.digest, sha256(data))
  assert.deepEqual(EXPOSED.filter((name) => !(name in reply.headers)), [])
})

test('the page downloads a range, with a preflight', async () => {
  const url = await folder.downloadUrl('page.bin')
  const whole = await inPage('download', { url })
  const headers = { Range: 'bytes=1000-1999', 'If-Range': whole.headers.etag }
  const reply = await inPage('download', { url, headers })
  assert.equal(reply.status, 206)
  assert.equal(reply.headers['content-range'], `bytes 1000-1999/${1 << 20}`)
  assert.equal(reply.digest, sha256(noise(8, 1 << 20).subarray(1000, 2000)))
})

for (const kind of ['a directory', 'chosen files']) {
  test(`the page downloads an archive of ${kind}`, async () => {
    const url = kind === 'a directory' ? await folder.downloadUrl('project', { archive: 'true' }) : await folder.archiveUrl('project')
    const prefix = kind === 'a directory' ? '' : 'project/'
    const reply = await inPage('download', { url, keep: true })
    assert.equal(reply.status, 200)
    assert.match(reply.headers['content-disposition'], /\.zip"/)
    const file = path.join(scratch, 'archive.zip')
    writeFileSync(file, Buffer.from(reply.base64, 'base64'))
    const content = execFileSync('unzip', ['-p', file, `${prefix}src/main.py`])
    assert.equal(sha256(content), sha256(noise(1, 1001)))
  })
}

test('the page can read that a download is missing or refused', async () => {
  const missing = await folder.downloadUrl('nowhere.bin')
  assert.equal((await inPage('download', { url: missing })).status, 404)
  const expired = forge(missing, { exp: Math.floor(Date.now() / 1000) - 10 })
  assert.equal((await inPage('download', { url: expired })).status, 400)
})

test('a link starts a download of the browser', async () => {
  const url = await folder.downloadUrl('page.bin')
  const started = page.waitForEvent('download')
  await page.evaluate((href) => Object.assign(document.createElement('a'), { href }).click(), url)
  const download = await started
  assert.equal(download.suggestedFilename(), 'page.bin')
  assert.equal(sha256(readFileSync(await download.path())), sha256(noise(8, 1 << 20)))
})
