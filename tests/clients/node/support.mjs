// What the Node and browser tests share: the running agent's APIs, reproducible data, a connection that breaks.

import { createHash, createHmac, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'

const { AGENT_CLIENT, AGENT_MANAGER, AGENT_MANAGER_SECRET, AGENT_TOKEN_SECRET } = process.env

export const client = AGENT_CLIENT

/** One call of the manager API; the reply's JSON, or null when it is empty. */
export async function manager(method, route, parameters) {
  const request = new Request(AGENT_MANAGER + route, {
    method,
    headers: { 'X-BackendAI-Storage-Auth-Token': AGENT_MANAGER_SECRET, 'Content-Type': 'application/json' },
    body: JSON.stringify(parameters),
  })
  const reply = await fetch(request)
  const text = await reply.text()
  if (!reply.ok) throw new Error(`${method} ${route}: ${reply.status} ${text}`)
  return text ? JSON.parse(text) : null
}

/** A fresh vfolder, and the URLs of its files as the manager hands them out. */
export class Folder {
  static async create() {
    const folder = new Folder()
    folder.vfid = `user:${randomUUID()}/${randomUUID().replaceAll('-', '')}`
    await folder.call('/folder/create', { options: null })
    return folder
  }

  call(route, parameters = {}) {
    return manager('POST', route, { volume: 'local', vfid: this.vfid, ...parameters })
  }

  async uploadUrl(relpath, size, query = {}) {
    const { token } = await this.call('/folder/file/upload', { relpath, size })
    return `${client}/upload?${new URLSearchParams({ token, ...query })}`
  }

  async downloadUrl(relpath, query = {}) {
    const { token } = await this.call('/folder/file/download', { relpath })
    return `${client}/download?${new URLSearchParams({ token, ...query })}`
  }

  async archiveUrl(...files) {
    const parameters = { volume: 'local', virtual_folder_id: this.vfid, files, filename: null }
    const { token } = await manager('POST', '/folder/file/archive-download-token', parameters)
    return `${client}/download-archive?${new URLSearchParams({ token })}`
  }

  /** The digest of what a download of the file gives. */
  async digest(relpath) {
    const reply = await fetch(await this.downloadUrl(relpath))
    if (!reply.ok) throw new Error(`download of ${relpath}: ${reply.status}`)
    return sha256(Buffer.from(await reply.arrayBuffer()))
  }
}

export const sha256 = (data) => createHash('sha256').update(data).digest('hex')

/** A token of ours with other claims, signed as the agent signs it. */
export function forge(url, claims) {
  const [head, body] = new URL(url).searchParams.get('token').split('.')
  const changed = { ...JSON.parse(Buffer.from(body, 'base64url')), ...claims }
  const signed = `${head}.${Buffer.from(JSON.stringify(changed)).toString('base64url')}`
  const signature = createHmac('sha256', AGENT_TOKEN_SECRET).update(signed).digest('base64url')
  const forged = new URL(url)
  forged.searchParams.set('token', `${signed}.${signature}`)
  return forged.href
}

/** The source of `noise`, which the browser's page loads too. */
export const noiseSource = readFileSync(path.join(import.meta.dirname, 'noise.js'), 'utf8')

/** Bytes that look random and are the same for the same seed. */
export const noise = new Function(`${noiseSource}; return noise`)()

/** Relays to the agent; its first connection breaks after `up` bytes towards the agent. */
export async function breakingRelay(url, up) {
  const { hostname, port } = new URL(url)
  const relay = { broken: 0 }
  const server = net.createServer((socket) => {
    const agent = net.connect(Number(port), hostname)
    let left = relay.broken ? Infinity : up
    socket.on('data', (data) => {
      agent.write(data.subarray(0, Math.min(left, data.length)))
      left -= data.length
      if (left > 0) return
      socket.removeAllListeners('data')
      relay.broken += 1
      agent.end()
      socket.destroy()
    })
    agent.on('data', (data) => socket.write(data))
    for (const [one, other] of [[socket, agent], [agent, socket]]) {
      one.on('error', () => other.destroy())
      one.on('close', () => other.destroy())
    }
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const relayed = Object.assign(new URL(url), { port: server.address().port })
  return Object.assign(relay, { url: relayed.href, close: () => server.close() })
}
