// The server under test: the real binary named by TAFFRAIL_BIN, else the mock (always for tests that say `mocked`). Both are driven through the same handle:
//   { url, token, stop(), start(), post(payload), link(), dispose() }

import { spawn } from 'node:child_process'
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startMock, Store } from './mock.mjs'
import { responseLine } from './payloads.mjs'

const READY_LIMIT_MS = 15_000

export async function startServer({ name, mocked = false }) {
  const folder = name.replace(/\W+/g, '-').slice(0, 30)
  return process.env.TAFFRAIL_BIN && !mocked ? startBinary(process.env.TAFFRAIL_BIN, folder) : startMocked()
}

function handle(parts) {
  const server = {
    ...parts,
    /** Delivers one hook payload: an object, or text sent as it is. */
    async post(payload) {
      const body = typeof payload === 'string' ? payload : JSON.stringify(payload)
      const response = await fetch(`${server.url}/v1/hooks/claude-code`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
      await response.arrayBuffer()
      if (!response.ok) throw new Error(`the hook route answered ${response.status}`)
    },
    /** Tells of one API request, as the client does in its transcript; `cost_usd` is what it costs, for the mock that has no prices. */
    bill(request) {
      if (!server.isMock) return appendFileSync(join(server.transcripts, `${request.session_id}.jsonl`), responseLine(request))
      return server.broadcast(server.store.bill({ app: server.store.events.find((event) => event.session_id === request.session_id)?.app ?? 'unknown', ...request }))
    },
    /** A one-time sign-in link. */
    async link() {
      const response = await fetch(`${server.url}/api/v1/auth/link`, { method: 'POST', headers: { authorization: `Bearer ${server.token}` } })
      if (!response.ok) throw new Error(`the link route answered ${response.status}: ${await response.text()}`)
      const body = await response.json()
      const link = body.url ?? body.link ?? body.path ?? (body.code ? `/auth?code=${body.code}` : null)
      if (!link) throw new Error(`no link in ${JSON.stringify(body)}`)
      return new URL(link, server.url).href
    },
  }
  return server
}

async function startMocked() {
  const store = new Store()
  // Sessions survive a restart, as the real server's signed cookies do.
  const sessions = new Set()
  let mock = await startMock({ store, sessions })
  const port = Number(new URL(mock.url).port)
  return handle({
    url: mock.url,
    token: mock.token,
    isMock: true,
    store,
    broadcast: (frame) => mock.broadcast(frame),
    stop: () => mock.close(),
    async start() {
      mock = await startMock({ store, sessions, port })
    },
    dispose: () => mock.close().catch(() => undefined),
  })
}

async function startBinary(binary, name) {
  const dir = mkdtempSync(join(tmpdir(), `taffrail-e2e-${name}-`))
  // The transcripts of whoever runs the tests are none of theirs.
  const client = join(dir, 'client')
  const transcripts = join(client, 'projects', '-home-user')
  mkdirSync(transcripts, { recursive: true })
  let child = null

  async function run(listen) {
    const log = []
    child = spawn(binary, ['serve', '--listen', listen, '--data-dir', dir], { env: { ...process.env, CLAUDE_CONFIG_DIR: client }, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => log.push(chunk.toString()))
    const deadline = Date.now() + READY_LIMIT_MS
    while (Date.now() < deadline) {
      if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}:\n${log.join('')}`)
      const base = addressOf(dir, child.pid)
      if (base !== null && (await answers(base))) return base
      await new Promise((resolve) => setTimeout(resolve, 30))
    }
    throw new Error(`the server was not ready in ${READY_LIMIT_MS} ms:\n${log.join('')}`)
  }

  async function stop() {
    if (child === null || child.exitCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    await ended
  }

  const url = await run('127.0.0.1:0')
  return handle({
    url,
    token: readFileSync(join(dir, 'token'), 'utf8').trim(),
    isMock: false,
    store: null,
    transcripts,
    stop,
    start: () => run(new URL(url).host),
    async dispose() {
      await stop()
      rmSync(dir, { recursive: true, force: true })
    },
  })
}

/** The demo's fleet at work, in a database of its own. Its server is the demo's child, so it ends by its own command. */
export async function startDemo(binary) {
  const dir = mkdtempSync(join(tmpdir(), 'taffrail-e2e-demo-'))
  const env = { ...process.env, CLAUDE_CONFIG_DIR: join(dir, 'client') }
  const child = spawn(binary, ['demo', '--data-dir', dir, '--listen', '127.0.0.1:0'], { env, stdio: 'ignore' })
  const deadline = Date.now() + 10 * READY_LIMIT_MS
  let found = null
  while (found === null && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 200))
    for (const home of [dir, join(dir, 'demo')]) {
      const base = addressOf(home, undefined)
      if (base !== null && (await answers(base))) found = { base, home }
    }
  }
  if (found === null) throw new Error('the demo was not ready')
  return handle({
    url: found.base,
    token: readFileSync(join(found.home, 'token'), 'utf8').trim(),
    isMock: false,
    async dispose() {
      child.kill('SIGINT')
      await new Promise((resolve) => (child.exitCode === null ? child.once('exit', resolve) : resolve()))
      const down = spawn(binary, ['down', '--data-dir', found.home], { stdio: 'ignore' })
      await new Promise((resolve) => down.once('exit', resolve))
      rmSync(dir, { recursive: true, force: true })
    },
  })
}

function addressOf(dir, pid) {
  try {
    const info = JSON.parse(readFileSync(join(dir, 'server.json'), 'utf8'))
    if (pid !== undefined && info.pid !== undefined && info.pid !== pid) return null
    const address = info.url ?? info.listen ?? info.addr ?? info.address
    return address.startsWith('http') ? address.replace(/\/$/, '') : `http://${address}`
  } catch {
    return null
  }
}

async function answers(base) {
  try {
    return (await fetch(`${base}/health`)).ok
  } catch {
    return false
  }
}
