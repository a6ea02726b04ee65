// Uploads a file with tus-js-client: node tus_upload.mjs URL FILE. Prints the number of requests.

import { createReadStream, statSync } from 'node:fs'
import * as tus from 'tus-js-client'

const [url, file] = process.argv.slice(2)
let requests = 0
const running = new tus.Upload(createReadStream(file), {
  endpoint: url,
  uploadUrl: url,
  uploadSize: statSync(file).size,
  // As the Backend.AI web UI does it.
  chunkSize: 15 * 1024 * 1024,
  retryDelays: null,
  onBeforeRequest: () => {
    requests += 1
  },
  onSuccess: () => console.log(requests),
  onError: (error) => {
    console.error(error.message)
    process.exitCode = 1
  },
})
running.start()
