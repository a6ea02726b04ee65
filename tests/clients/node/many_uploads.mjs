// Uploads many files with tus-js-client as the web UI does, through whatever stands at the given URLs, and reports what
// the suite `events` checks: one line for each file, its path, its digest and how often the client had to try again.

import * as tus from 'tus-js-client'
import { Folder, noise, sha256 } from './support.mjs'

const [first, count, parallel, largest, chunk] = process.argv.slice(2).map(Number)
const folder = Object.assign(new Folder(), { vfid: process.env.VFID })

/** A call that is made again while agents are being killed behind the balancer. */
async function patiently(call) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await call()
    } catch (error) {
      if (attempt === 50) throw error
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }
}

async function upload(number) {
  const name = `js/${number}.bin`
  const data = Buffer.from(noise(number, 1 + ((number * 7919) % largest)))
  const url = await patiently(() => folder.uploadUrl(name, data.length))
  let retries = 0
  await new Promise((resolve, reject) => {
    new tus.Upload(data, {
      endpoint: url,
      uploadUrl: url,
      chunkSize: chunk,
      retryDelays: [0, 300, 500, 1000, 3000, 5000, 10000, 20000],
      onShouldRetry: (error) => {
        retries += 1
        // The client's own rule, without its look at a browser's connection.
        const status = error.originalResponse?.getStatus() ?? 0
        return status < 400 || status >= 500 || status === 409 || status === 423
      },
      onSuccess: resolve,
      onError: reject,
    }).start()
  })
  console.log(JSON.stringify({ name, digest: sha256(data), retries }))
}

const numbers = Array.from({ length: count }, (_, index) => first + index)
await Promise.all(
  Array.from({ length: parallel }, async () => {
    for (let number = numbers.shift(); number !== undefined; number = numbers.shift()) await upload(number)
  }),
)
