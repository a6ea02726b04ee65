// The page's side of the browser tests: each function does what a web UI does and returns what such a page can see.
/* global tus, noise */

const CHUNK = 15 * 1024 * 1024
const RETRIES = [0, 100, 300]

function newUpload({ url, seed, size }, options) {
  return new tus.Upload(new Blob([noise(seed, size)]), {
    endpoint: url,
    uploadUrl: url,
    chunkSize: CHUNK,
    retryDelays: RETRIES,
    storeFingerprintForResuming: false,
    ...options,
  })
}

window.upload = (file) =>
  new Promise((resolve) => {
    newUpload(file, {
      onSuccess: () => resolve({ done: true }),
      onError: (error) => resolve({ done: false, status: error.originalResponse?.getStatus() ?? `${error}` }),
    }).start()
  })

window.uploadAll = async ({ files, workers }) => {
  const queue = [...files]
  const failed = []
  const work = async () => {
    for (let file = queue.shift(); file; file = queue.shift()) {
      const { done, status } = await window.upload(file)
      if (!done) failed.push({ url: file.url, status })
    }
  }
  await Promise.all(Array.from({ length: workers }, work))
  return { failed }
}

// Resolves with the offsets that the agent told at the start and after the pause.
window.uploadWithPause = (file) =>
  new Promise((resolve, reject) => {
    const offsets = []
    let paused = false
    const running = newUpload(file, {
      onSuccess: () => resolve({ offsets }),
      onError: reject,
      onAfterResponse: (request, response) => {
        if (request.getMethod() === 'HEAD') offsets.push(Number(response.getHeader('Upload-Offset')))
      },
      onProgress: (sent) => {
        if (paused || sent < file.pauseAt) return
        paused = true
        running.abort().then(() => setTimeout(() => running.start(), 200))
      },
    })
    running.start()
  })

// Resolves in the middle of the upload, which goes on until the page is closed.
window.uploadUntil = (file) =>
  new Promise((resolve, reject) => {
    newUpload(file, { onError: reject, onProgress: (sent) => sent >= file.stopAt && resolve() }).start()
  })

window.request = async ({ url, method, size, headers }) => {
  const tusHeaders = { 'Tus-Resumable': '1.0.0', 'Content-Type': 'application/offset+octet-stream', 'Upload-Offset': '0' }
  const body = size ? noise(0, size) : undefined
  const reply = await fetch(url, { method, body, headers: method === 'PATCH' ? { ...tusHeaders, ...headers } : headers })
  return { status: reply.status, headers: Object.fromEntries(reply.headers) }
}

window.download = async ({ url, headers, keep }) => {
  const reply = await fetch(url, { headers })
  const data = new Uint8Array(await reply.arrayBuffer())
  const digest = [...new Uint8Array(await crypto.subtle.digest('SHA-256', data))]
  return {
    status: reply.status,
    headers: Object.fromEntries(reply.headers),
    digest: digest.map((byte) => byte.toString(16).padStart(2, '0')).join(''),
    base64: keep && btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join('')),
  }
}
