// A stand-in for the server, for working on the page without Rust: `npm run mock` (then `npm run dev`), and for the browser
// tests where TAFFRAIL_BIN names no binary. It serves the routes and shapes that the page uses, from memory, and the built
// page under the same policy as the server. Its figures are computed simply (exact quantiles, no rollups).
//
//   node e2e/mock.mjs [--listen HOST:PORT] [--token TOKEN] [--seed] [--fill N] [--open]
//
// --seed loads the recorded sessions of fixtures/realclient, --fill N makes N calls up, --open signs every browser in.

import { createHash, randomUUID } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { dirname, extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WebSocketServer } from 'ws'

const here = dirname(fileURLToPath(import.meta.url))
const dist = join(here, '..', 'dist')
const recordings = join(here, '..', '..', 'fixtures', 'realclient')
const PROJECTS = { 'quick-edit': 'greeter', 'failing-tests': 'stats', 'git-work': 'units', subagents: 'api-gateway', 'permission-denied': 'greeter', 'parallel-tools': 'stats', 'slash-and-skill': 'docs-site', 'resume-compact': 'units' }
const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
const BODY_LIMIT_BYTES = 16 * 1024 * 1024
const WINDOWS = { '1m': 60e3, '5m': 300e3, '15m': 900e3, '1h': 3600e3, '6h': 21600e3, '24h': 86400e3, '7d': 604800e3, '30d': 2592000e3 }
const STEPS = 30

/** Starts a mock. Gives its base URL and `close`. */
export async function startMock({ host = '127.0.0.1', port = 0, token = 'mock-token', open = false, store = new Store(), sessions = new Set() } = {}) {
  const codes = new Set()
  const sockets = new Set()
  const server = createServer((request, response) => {
    handle(request, response).catch((error) => problem(response, 500, 'Internal error', String(error)))
  })

  const signedIn = (request) =>
    open || request.headers.authorization === `Bearer ${token}` || sessions.has(/taffrail_session=([^;]+)/.exec(request.headers.cookie ?? '')?.[1])

  function signIn(response, status, headers) {
    const id = randomUUID()
    sessions.add(id)
    response.writeHead(status, { 'set-cookie': `taffrail_session=${id}; HttpOnly; SameSite=Strict; Path=/`, ...headers })
    response.end()
  }

  async function handle(request, response) {
    const url = new URL(request.url, 'http://mock')
    const route = `${request.method} ${url.pathname}`
    if (route === 'GET /api/v1/auth/session') return json(response, { signed_in: signedIn(request) })
    if (route === 'POST /api/v1/auth/login') {
      const body = JSON.parse(await readBody(request))
      return body.token === token ? signIn(response, 204, {}) : problem(response, 401, 'Unauthorized', 'the token is not the one of this data directory')
    }
    if (route === 'GET /auth') {
      if (!codes.delete(url.searchParams.get('code'))) return problem(response, 401, 'Unauthorized', 'the link was used or is too old')
      return signIn(response, 303, { location: '/' })
    }
    if (route === 'POST /v1/hooks/claude-code') {
      const event = store.add(await readBody(request))
      broadcast({ type: 'event', data: withoutPayload(event) })
      return json(response, {})
    }
    if (url.pathname.startsWith('/api/')) {
      if (!signedIn(request)) return problem(response, 401, 'Unauthorized', 'sign in first', 'run `taffrail up` for a one-time link')
      if (route === 'POST /api/v1/auth/link') {
        const code = randomUUID()
        codes.add(code)
        return json(response, { url: `${base()}/auth?code=${code}` })
      }
      return api(url, response)
    }
    return page(url, response)
  }

  function api(url, response) {
    const event = /^\/api\/v1\/events\/(\d+)$/.exec(url.pathname)
    if (event) {
      const found = store.get(Number(event[1]))
      return found ? json(response, found) : problem(response, 404, 'Not found', `there is no event ${event[1]}`)
    }
    if (url.pathname === '/api/v1/events') return json(response, store.page(url.searchParams))
    if (url.pathname === '/api/v1/costs') return json(response, store.costs(url.searchParams, Date.now()))
    if (url.pathname === '/api/v1/calls') return json(response, store.calls(url.searchParams))
    if (url.pathname === '/api/v1/filters') return json(response, store.filters())
    if (url.pathname === '/api/v1/summary') {
      const window = url.searchParams.get('window') ?? '1h'
      if (!(window in WINDOWS)) return problem(response, 400, 'Bad request', `there is no window ${window}`)
      return json(response, store.summary(window, url.searchParams, Date.now()))
    }
    const agents = /^\/api\/v1\/sessions\/([^/]+)\/agents$/.exec(url.pathname)
    if (agents) return json(response, { items: store.agents(decodeURIComponent(agents[1])), next_cursor: null })
    return problem(response, 404, 'Not found', `there is no ${url.pathname}`)
  }

  const streams = new WebSocketServer({ noServer: true })
  server.on('upgrade', (request, socket, head) => {
    if (!signedIn(request)) return socket.end('HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n')
    streams.handleUpgrade(request, socket, head, (stream) => {
      sockets.add(stream)
      stream.on('close', () => sockets.delete(stream))
      stream.send(JSON.stringify({ type: 'initial', data: store.events.slice(-300).map(withoutPayload) }))
    })
  })
  function broadcast(frame) {
    const text = JSON.stringify(frame)
    for (const stream of sockets) stream.send(text)
  }
  const ticker = setInterval(() => sockets.size > 0 && broadcast({ type: 'analytics', data: store.summary('1m', new URLSearchParams(), Date.now()) }), 5000)

  await new Promise((resolve, reject) => server.once('error', reject).listen(port, host, resolve))
  const base = () => `http://${host}:${server.address().port}`
  return {
    url: base(),
    token,
    store,
    broadcast,
    async close() {
      clearInterval(ticker)
      for (const stream of sockets) stream.terminate()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Events in memory, in id order. */
export class Store {
  events = []
  /** API requests, as the ledger has them: { ts_ms, session_id, app, model, tokens{...}, cost_usd (null: no price), confidence }. */
  requests = []
  #last = 0

  /** Takes in an API request; gives the stream's frame. */
  bill({ at = Date.now(), session_id, app, model = 'claude-sonnet-4-5', cost_usd, confidence = cost_usd === null ? 'unpriced' : 'exact', input = 100, output = 200, cache_read = 5000, cache_write_5m = 300, cache_write_1h = 0 }) {
    this.requests.push({ ts_ms: at, session_id, app, model, cost_usd, confidence, tokens: { input, output, cache_read, cache_write_5m, cache_write_1h, total: input + output + cache_read + cache_write_5m + cache_write_1h } })
    const totals = costTotals(this.requests.filter((one) => one.session_id === session_id))
    return { type: 'cost', data: { sessions: [{ session_id, app, cost_usd: totals.cost_usd, delta_usd: cost_usd ?? 0, requests: totals.requests, new_requests: 1, confidence: CONFIDENCES.findLast((kind) => totals.confidence[kind] > 0) }], unpriced_models: cost_usd === null ? [model] : [], more_sessions: 0 } }
  }

  #billed(params, from, to) {
    const want = (name) => params.get(name)
    return this.requests.filter((one) => (!want('app') || one.app === want('app')) && (!want('session') || one.session_id === want('session')) && one.ts_ms >= from && one.ts_ms <= to)
  }

  costs(params, now) {
    const window = WINDOWS[params.get('window')]
    const from = window ? now - window : Number(params.get('from') ?? 0)
    const billed = this.#billed(params, from, Number(params.get('to') ?? now))
    const by = params.get('group_by') ?? ''
    const rows = [...groupBy(billed, (one) => one[by] ?? '')].map(([value, list]) => ({ ...(by ? { [by]: value } : {}), ...costTotals(list) }))
    const unpriced = [...groupBy(billed.filter((one) => one.cost_usd === null), (one) => one.model)].map(([model, list]) => ({ model, requests: list.length, total_tokens: costTotals(list).total_tokens }))
    return { currency: 'USD', timezone: 'UTC', from_ms: from, to_ms: null, rows: rows.sort((a, b) => (b.cost_usd ?? 0) - (a.cost_usd ?? 0)), cut: false, totals: costTotals(billed), unpriced }
  }

  /** `at`: when it happened; now where absent. */
  add(text, at = Date.now()) {
    const event = eventOf(text, at)
    event.id = Math.max(this.#last + 1, (at - 1577836800000) * 4096)
    this.#last = event.id
    this.events.push(event)
    return event
  }

  get(id) {
    return this.events.find((event) => event.id === id)
  }

  #matching(params) {
    const want = (name) => params.get(name)
    const q = params.get('q')?.replace(/[A-Z]/g, (c) => c.toLowerCase())
    return (event) =>
      (!want('app') || event.app === want('app')) &&
      (!want('session') || event.session_id === want('session')) &&
      (!params.has('agent') || (event.agent_id ?? '') === want('agent')) &&
      (!want('type') || event.type === want('type')) &&
      (!want('tool') || event.tool_name === want('tool')) &&
      (!want('from') || event.ts_ms >= Number(want('from'))) &&
      (!want('to') || event.ts_ms < Number(want('to'))) &&
      (!q || [event.summary, event.type, event.tool_name ?? '', event.app].some((text) => text.replace(/[A-Z]/g, (c) => c.toLowerCase()).includes(q)))
  }

  page(params) {
    const limit = Math.min(1000, Number(params.get('limit') ?? 100))
    const before = params.has('cursor') ? Number(params.get('cursor')) : Infinity
    const matches = this.#matching(params)
    const items = []
    for (let i = this.#before(before) - 1; i >= 0 && items.length <= limit; i -= 1) {
      if (matches(this.events[i])) items.push(this.events[i])
    }
    const more = items.length > limit
    if (more) items.pop()
    return { items: params.get('payload') === 'false' ? items.map(withoutPayload) : items, next_cursor: more ? String(items.at(-1).id) : null }
  }

  /** The place of the first event with at least this id. */
  #before(id) {
    let low = 0
    let high = this.events.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.events[middle].id < id) low = middle + 1
      else high = middle
    }
    return low
  }

  #callsOf(events) {
    const calls = new Map()
    for (const event of events) {
      if (!event.tool_name || !['PreToolUse', 'PostToolUse', 'PostToolUseFailure', 'PermissionDenied'].includes(event.type)) continue
      const key = `${event.session_id} ${event.agent_id ?? ''} ${event.tool_use_id ?? event.id}`
      const call = calls.get(key) ?? { id: event.id, tool_use_id: event.tool_use_id ?? null, app: event.app, session_id: event.session_id, agent_id: event.agent_id ?? null, agent_type: event.agent_type ?? null, tool_name: event.tool_name, summary: event.summary, status: 'running', started_ms: null, ended_ms: null, duration_ms: null, start_event: null, end_event: null, error_type: null, tool_chain: { previous_tool: null, next_tool: null, is_parallel: false }, seen_ms: event.ts_ms }
      calls.set(key, call)
      if (event.type === 'PreToolUse') Object.assign(call, { started_ms: event.ts_ms, start_event: event.id })
      else if (event.type === 'PermissionDenied') Object.assign(call, { status: 'denied', ended_ms: event.ts_ms })
      else Object.assign(call, { status: event.error ? 'failed' : 'succeeded', ended_ms: event.ts_ms, end_event: event.id, duration_ms: event.metrics.execution_time_ms, error_type: event.error?.type ?? null })
    }
    for (const event of events) {
      if (!['PostToolBatch', 'SessionEnd', 'Stop'].includes(event.type)) continue
      for (const call of calls.values()) {
        if (call.status === 'running' && call.session_id === event.session_id && call.started_ms <= event.ts_ms) call.status = event.type === 'PostToolBatch' ? 'denied' : 'abandoned'
      }
    }
    return [...calls.values()]
  }

  calls(params) {
    const from = Number(params.get('from') ?? 0)
    const to = Number(params.get('to') ?? Infinity)
    const wanted = ([name, field]) => !params.get(name) || ((call) => call[field] === params.get(name))
    const tests = [['app', 'app'], ['session', 'session_id'], ['tool', 'tool_name'], ['status', 'status']].map(wanted).filter((test) => test !== true)
    const items = this.#callsOf(this.events).filter((call) => call.seen_ms >= from && call.seen_ms < to && tests.every((test) => test(call)))
    return { items: items.reverse().slice(0, Number(params.get('limit') ?? 100)).map(({ seen_ms: _, ...call }) => call), next_cursor: null }
  }

  filters() {
    const facet = (pick) => {
      const counts = new Map()
      for (const event of this.events) if (pick(event)) counts.set(pick(event), (counts.get(pick(event)) ?? 0) + 1)
      return [...counts].map(([value, count]) => ({ value, count })).sort((a, b) => (a.value < b.value ? -1 : 1))
    }
    const sessions = new Map()
    for (const event of this.events) sessions.set(event.session_id, { session_id: event.session_id, app: event.app, last_event_ms: event.ts_ms })
    return { apps: facet((e) => e.app), types: facet((e) => e.type), tools: facet((e) => e.tool_name), sessions: [...sessions.values()].sort((a, b) => b.last_event_ms - a.last_event_ms).slice(0, 300) }
  }

  agents(session) {
    const agents = new Map()
    for (const event of this.events) {
      if (event.session_id !== session) continue
      const key = event.agent_id ?? ''
      const agent = agents.get(key) ?? { agent_id: event.agent_id ?? null, agent_type: event.agent_type ?? null, started_ms: event.ts_ms, ended_ms: null, last_event_ms: 0, events: 0, calls: 0, failed_calls: 0 }
      agents.set(key, { ...agent, last_event_ms: event.ts_ms, events: agent.events + 1 })
    }
    return [...agents.values()]
  }

  summary(window, params, now) {
    const length = WINDOWS[window]
    const grain = length >= WINDOWS['7d'] ? 3600e3 : 60e3
    const from = Math.floor((now - length) / grain) * grain
    const step = Math.ceil((now - from) / STEPS)
    const events = this.events.filter(this.#matching(params)).filter((event) => event.ts_ms >= from && event.ts_ms <= now)
    const ended = this.#callsOf(events).filter((call) => call.ended_ms !== null || call.status === 'denied')
    const failed = ended.filter((call) => call.status === 'failed')
    const denied = ended.filter((call) => call.status === 'denied')
    const minutes = (now - from) / 60e3
    const own = ended.length - denied.length
    const rate = own === 0 ? 0 : (failed.length / own) * 100
    const history = Array.from({ length: STEPS }, (_, i) => {
      const start = from + i * step
      const inside = (ms) => ms >= start && ms < start + step
      const calls = ended.filter((call) => inside(call.ended_ms ?? call.started_ms))
      const times = quantiles(calls.map((call) => call.duration_ms).filter((ms) => ms !== null))
      const of = events.filter((event) => inside(event.ts_ms))
      return { t_ms: start, events: of.length, calls: calls.length, failed: calls.filter((call) => call.status === 'failed').length, execution_ms_avg: times.avg, execution_ms_p95: times.p95, file_operations: of.reduce((sum, event) => sum + event.file_operations.length, 0) }
    })
    const files = events.flatMap((event) => event.file_operations)
    const git = events.map((event) => event.git_operations).filter(Boolean)
    const active = events.filter((event) => event.ts_ms > now - 300e3)
    return {
      window: { name: window, from_ms: from, to_ms: now, step_ms: step, events: events.length },
      performance: {
        calls: ended.length, execution_ms: quantiles(ended.map((c) => c.duration_ms).filter((ms) => ms !== null)), throughput_per_min: ended.length / minutes, latency_ms: quantiles(events.map(() => 3)),
        concurrency_avg: ended.reduce((sum, c) => sum + (c.duration_ms ?? 0), 0) / (now - from), concurrency_max: ended.length > 0 ? 3 : 0, trend_percent: ended.length > 0 ? -4.2 : null, history,
        tools: [...groupBy(ended, (c) => c.tool_name)].map(([tool_name, calls]) => ({ tool_name, calls: calls.length, failed: calls.filter((c) => c.status === 'failed').length, execution_ms: quantiles(calls.map((c) => c.duration_ms).filter((ms) => ms !== null)) })).sort((a, b) => b.calls - a.calls).slice(0, 50),
      },
      ...this.#money(params, from, now, step),
      errors: { failed: failed.length, error_rate_percent: rate, status: rate < 1 ? 'healthy' : rate < 5 ? 'warning' : 'critical', trend_points: failed.length > 0 ? 0.8 : null, by_type: [...groupBy(failed, (c) => c.error_type ?? 'other')].map(([value, list]) => ({ value, count: list.length })).sort((a, b) => b.count - a.count) },
      file_operations: { total: files.length, per_min: files.length / minutes, ...Object.fromEntries(['read', 'write', 'edit', 'delete'].map((kind) => [kind, files.filter((f) => f.type === kind).length])), lines_added: sum(files, 'lines_added'), lines_removed: sum(files, 'lines_removed') },
      git: { operations: git.length, commits: git.filter((g) => g.subcommand === 'commit').length, insertions: sum(git, 'insertions'), deletions: sum(git, 'deletions') },
      memory: { compactions: events.filter((e) => e.type === 'PostCompact').length, context_size: null, context_utilization: null },
      quality: { success_percent: own === 0 ? null : ((own - failed.length) / own) * 100, denied_percent: ended.length === 0 ? null : (denied.length / ended.length) * 100, denied: denied.length, interrupted: 0 },
      sessions: { seen: new Set(events.map((e) => e.session_id)).size, active: new Set(active.map((e) => e.session_id)).size, active_agents: new Set(active.map((e) => e.session_id + (e.agent_id ?? ''))).size, prompts: events.filter((e) => e.type === 'UserPromptSubmit').length },
    }
  }

  #money(params, from, now, step) {
    if (this.requests.length === 0) return { tokens: null, cost: null }
    const billed = this.#billed(params, from, now)
    const { cost_usd, requests, confidence, cost_by_confidence, ...t } = costTotals(billed)
    const read = t.input_tokens + t.cache_read_tokens + t.cache_write_5m_tokens + t.cache_write_1h_tokens
    const history = Array.from({ length: STEPS }, (_, i) => {
      const of = costTotals(billed.filter((one) => one.ts_ms >= from + i * step && one.ts_ms < from + (i + 1) * step))
      return { t_ms: from + i * step, requests: of.requests, tokens: of.total_tokens, cost_usd: of.cost_usd }
    })
    return {
      tokens: { input: t.input_tokens, output: t.output_tokens, cache_read: t.cache_read_tokens, cache_write_5m: t.cache_write_5m_tokens, cache_write_1h: t.cache_write_1h_tokens, total: t.total_tokens, cache_hit_percent: read === 0 ? null : (t.cache_read_tokens / read) * 100 },
      cost: { total_cost_usd: cost_usd, cost_hourly_usd: cost_usd === null ? null : cost_usd / ((now - from) / 3600e3), trend_percent: requests > 0 ? 12.3 : null, requests, unpriced_requests: confidence.unpriced, confidence, cost_by_confidence, history },
    }
  }

  /** The recorded sessions, laid over the last 50 minutes `rounds` times. */
  seed(rounds = 3, now = Date.now()) {
    const recorded = readFixtures()
    const scenarios = [...groupBy(recorded, (line) => line.scenario).values()]
    const all = []
    for (let round = 0; round < rounds; round += 1) {
      scenarios.forEach((lines, i) => {
        const shift = now - 50 * 60e3 + (round * scenarios.length + i) * ((48 * 60e3) / (rounds * scenarios.length))
        for (const line of lines) {
          const body = { ...line.body, session_id: uuidOf(line.body.session_id + round), ...(line.body.tool_use_id ? { tool_use_id: line.body.tool_use_id + round } : {}) }
          all.push([shift + line.captured_ms - lines[0].captured_ms, body])
        }
      })
    }
    all.sort((a, b) => a[0] - b[0])
    for (const [at, body] of all) {
      const event = this.add(JSON.stringify(body), Math.round(at))
      if (event.type !== 'PostToolUse') continue
      const n = this.requests.length
      this.bill({ at: event.ts_ms, session_id: event.session_id, app: event.app, model: n % 5 === 0 ? 'claude-haiku-4-5' : 'claude-opus-4-5', cost_usd: n % 5 === 0 ? 0.0021 : 0.0437, confidence: n % 7 === 0 ? 'lower_bound' : 'exact', cache_read: 18_000 + n * 100 })
    }
  }

  /** `n` made-up calls (two events each) in the last hours, one every 100 ms. */
  fill(n, now = Date.now()) {
    const tools = ['Bash', 'Read', 'Edit', 'Grep', 'Write']
    for (let i = 0; i < n; i += 1) {
      const session_id = `0000000${i % 7}-fill-4000-8000-000000000000`
      const tool_name = tools[i % tools.length]
      const common = { session_id, cwd: '/home/user/fill', tool_name, tool_use_id: `toolu_fill_${i}`, tool_input: { command: `step ${i}`, file_path: `/home/user/fill/f${i}.txt` } }
      const at = now - (n - i) * 100
      this.add(JSON.stringify({ ...common, hook_event_name: 'PreToolUse' }), at)
      this.add(JSON.stringify({ ...common, hook_event_name: 'PostToolUse', tool_response: { ok: true }, duration_ms: 40 + (i % 50) }), at + 50)
    }
  }
}

/** The recordings of the real client by scenario, each moved to a project of its own name. */
export function readFixtures() {
  return Object.entries(PROJECTS).flatMap(([scenario, project]) => {
    const text = readFileSync(join(recordings, scenario, 'hooks.jsonl'), 'utf8').replaceAll('/home/user/project', `/home/user/${project}`)
    return text.trim().split('\n').map((line) => ({ scenario, ...JSON.parse(line) }))
  })
}

function eventOf(text, at) {
  let payload = text
  try {
    payload = JSON.parse(text)
  } catch {
    // Kept as the text it is.
  }
  const p = typeof payload === 'object' && payload !== null ? payload : {}
  const type = p.hook_event_name ?? 'Malformed'
  const isEnd = type === 'PostToolUse' || type === 'PostToolUseFailure'
  const duration = isEnd ? (p.duration_ms ?? null) : null
  const event = {
    id: 0, event_id: randomUUID(), ts_ms: at, received_ms: at, source: 'hook', app: (p.cwd ?? '/unknown').split('/').at(-1), session_id: p.session_id ?? 'unknown',
    type, summary: summaryOf(p), metrics: { execution_time_ms: duration, token_usage: null, memory_usage: null, output_bytes: p.tool_response === undefined ? null : JSON.stringify(p.tool_response).length, hook_wall_us: null },
    file_operations: isEnd && !p.error ? filesOf(p, duration) : [], warnings: [], issues: [], payload, payload_bytes: Buffer.byteLength(text), payload_truncated: false, redactions: 0, user: 'user', host: 'workstation',
  }
  for (const name of ['agent_id', 'agent_type', 'prompt_id', 'tool_use_id', 'tool_name', 'model']) if (p[name]) event[name] = p[name]
  if (type === 'PostToolUseFailure') event.error = { type: classOf(p.error ?? ''), message: p.error ?? '', recoverable: true, retry_count: 0, fingerprint: createHash('sha256').update(p.error ?? '').digest('hex').slice(0, 16) }
  const command = p.tool_input?.command ?? ''
  const git = /(?:^|[;&|]\s*)git\s+(?:-C \S+ )?([a-z-]+)/.exec(command)
  if (isEnd && git) event.git_operations = { command, subcommand: git[1], branch: null, files_changed: null, insertions: null, deletions: null, commit: /\[[^\]]* ([0-9a-f]{7,})\]/.exec(JSON.stringify(p.tool_response ?? ''))?.[1] ?? null }
  if (isEnd) event.tool_chain = { previous_tool: null, next_tool: null, is_parallel: false }
  if (/rm -rf/.test(command)) event.warnings.push({ rule: 'destructive-command', severity: 'critical', message: 'deletes files recursively without asking' })
  return event
}

function summaryOf(p) {
  const input = p.tool_input ?? {}
  const text = p.error ?? input.command ?? input.file_path ?? input.pattern ?? input.description ?? p.prompt ?? p.message ?? p.delta ?? p.reason ?? p.source ?? p.last_assistant_message ?? p.file_path ?? ''
  return String(text).replace(/\s+/g, ' ').slice(0, 240)
}

function classOf(message) {
  if (/timed out/i.test(message)) return 'timeout'
  if (/does not exist|No such file|not found/i.test(message)) return 'not_found'
  if (/permission|denied/i.test(message)) return 'permission'
  return /Exit code/.test(message) ? 'exit_code' : 'other'
}

function filesOf(p, duration_ms) {
  const kind = { Read: 'read', Write: 'write', Edit: 'edit', MultiEdit: 'edit' }[p.tool_name]
  if (!kind) return []
  const lines = (text) => (text ? String(text).split('\n').length : 0)
  const changed = kind === 'edit' || kind === 'write'
  return [{ type: kind, path: p.tool_input?.file_path ?? '', size_bytes: null, duration_ms, lines_added: changed ? lines(p.tool_input?.new_string ?? p.tool_input?.content) : null, lines_removed: changed ? lines(p.tool_input?.old_string) : null }]
}

function withoutPayload({ payload: _, ...event }) {
  return event
}

function quantiles(values) {
  if (values.length === 0) return { avg: null, p50: null, p95: null, p99: null }
  const sorted = [...values].sort((a, b) => a - b)
  const at = (q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]
  return { avg: sorted.reduce((a, b) => a + b, 0) / sorted.length, p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}

function groupBy(list, pick) {
  const groups = new Map()
  for (const item of list) {
    const group = groups.get(pick(item))
    if (group) group.push(item)
    else groups.set(pick(item), [item])
  }
  return groups
}

const CONFIDENCES = ['exact', 'repaired', 'lower_bound', 'estimated', 'unpriced']

/** The sum of some requests, in the shape of the API. */
function costTotals(list) {
  const kinds = (pick, names) => Object.fromEntries(names.map((kind) => [kind, pick(list.filter((one) => one.confidence === kind))]))
  const dollars = (of) => of.reduce((total, one) => total + (one.cost_usd ?? 0), 0)
  const tokens = (key) => list.reduce((total, one) => total + one.tokens[key], 0)
  const times = list.map((one) => one.ts_ms)
  return {
    input_tokens: tokens('input'), output_tokens: tokens('output'), cache_read_tokens: tokens('cache_read'), cache_write_5m_tokens: tokens('cache_write_5m'), cache_write_1h_tokens: tokens('cache_write_1h'), total_tokens: tokens('total'),
    web_searches: 0, requests: list.length, cost_usd: list.length > 0 && list.every((one) => one.cost_usd === null) ? null : dollars(list),
    confidence: kinds((of) => of.length, CONFIDENCES), cost_by_confidence: kinds(dollars, CONFIDENCES.slice(0, 4)),
    first_ms: times.length > 0 ? Math.min(...times) : null, last_ms: times.length > 0 ? Math.max(...times) : null,
  }
}

const sum = (list, key) => list.reduce((total, item) => total + (item[key] ?? 0), 0)

function uuidOf(text) {
  const hex = createHash('sha256').update(text).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

async function readBody(request) {
  const chunks = []
  let size = 0
  for await (const chunk of request) {
    size += chunk.length
    if (size > BODY_LIMIT_BYTES) throw new Error('the body is too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function json(response, body) {
  response.writeHead(200, { 'content-type': 'application/json' })
  response.end(JSON.stringify(body))
}

function problem(response, status, title, detail, hint) {
  if (response.headersSent) return response.end()
  response.writeHead(status, { 'content-type': 'application/problem+json' })
  response.end(JSON.stringify({ type: 'about:blank', title, status, detail, hint }))
}

const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' }

function page(url, response) {
  const asked = join(dist, normalize(url.pathname))
  const file = asked.startsWith(dist) && extname(asked) !== '' && existsSync(asked) ? asked : join(dist, 'index.html')
  if (!existsSync(file)) return problem(response, 404, 'Not found', 'the page is not built', 'run `npm run build`')
  response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'content-security-policy': CSP, 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' })
  response.end(readFileSync(file))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const flag = (name) => process.argv.includes(name)
  const value = (name, otherwise) => (flag(name) ? process.argv[process.argv.indexOf(name) + 1] : otherwise)
  const [host, port] = value('--listen', '127.0.0.1:4010').split(':')
  const store = new Store()
  if (flag('--fill')) store.fill(Number(value('--fill', '0')))
  if (flag('--seed')) store.seed()
  const mock = await startMock({ host, port: Number(port), token: value('--token', 'mock-token'), open: flag('--open'), store })
  console.log(`${mock.url} (${store.events.length} events, token ${mock.token})`)
}
