// The rows of the Live page: a call's PreToolUse and its end are one row, everything else is a row of its own.
//
// Events come in any order (live frames forward, history backward, replays late), so every decision depends on ids, not on
// arrival. Rows are never changed in place: a change makes a new row object, so that the page redraws exactly that row.

import type { EventJson } from '../api/types'

export interface CallRow {
  readonly kind: 'call'
  readonly key: string
  /** Sorts the row: the id of its start, or of its end where only that is known. */
  readonly anchor: number
  readonly start: EventJson | null
  readonly end: EventJson | null
  /** A PermissionDenied for this very call. */
  readonly denied: boolean
}

export interface EventRow {
  readonly kind: 'event'
  readonly key: string
  readonly anchor: number
  readonly event: EventJson
}

export type Row = CallRow | EventRow

/** `unknown`: the filter, or the age of the row, leaves open how the call ended. */
export type RowStatus = 'running' | 'succeeded' | 'failed' | 'denied' | 'interrupted' | 'ended' | 'abandoned' | 'unknown'

/** A call without an end that began longer ago than this is no longer said to run, in milliseconds. */
export const RUNNING_MAX_MS = 6 * 3_600_000

/** Calls without an id that may wait for their other half, per session, agent and tool. */
const WAITING_MAX = 256

const START = 'PreToolUse'
const ENDS: ReadonlySet<string> = new Set(['PostToolUse', 'PostToolUseFailure'])
const CLOSES_AGENT: ReadonlySet<string> = new Set(['PostToolBatch', 'Stop', 'StopFailure', 'SubagentStop'])
const CLOSES_SESSION = 'SessionEnd'

/** The event that stands for the row: what its columns show. */
export function face(row: Row): EventJson {
  if (row.kind === 'event') return row.event
  const event = row.end ?? row.start
  if (event === null) throw new Error('a call row has a start or an end')
  return event
}

/** The latest knowledge first: what the row can be opened on. */
export function eventsOf(row: Row): EventJson[] {
  if (row.kind === 'event') return [row.event]
  return [row.end, row.start].filter((event) => event !== null)
}

export function startedAt(row: Row): number {
  if (row.kind === 'event') return row.event.ts_ms
  if (row.start !== null) return row.start.ts_ms
  const end = face(row)
  return end.ts_ms - (end.metrics.execution_time_ms ?? 0)
}

/** The client's own figure, else end minus start; null while it is not known. */
export function durationOf(row: Row): number | null {
  if (row.kind === 'event') return row.event.metrics.execution_time_ms
  if (row.end === null) return null
  if (row.end.metrics.execution_time_ms !== null) return row.end.metrics.execution_time_ms
  return row.start === null ? null : Math.max(0, row.end.ts_ms - row.start.ts_ms)
}

/** What closes the calls of an agent without naming them, by time. */
interface Closers {
  readonly ids: number[]
  readonly types: Map<number, string>
}

/** Calls without `tool_use_id`, of one session, agent and tool, that wait for their other half; by id. */
interface Waiting {
  readonly starts: CallRow[]
  readonly ends: CallRow[]
}

/**
 * Sorted rows (oldest first) of at most `capacity` events, with the pairing kept while events come and go.
 */
export class RowLog {
  readonly capacity: number
  private rows: Row[] = []
  private seen = new Set<number>()
  private calls = new Map<string, CallRow>()
  private waiting = new Map<string, Waiting>()
  private closers = new Map<string, Closers>()
  private byKey = new Map<string, Row>()
  private events = 0
  private maxTs = 0

  constructor(capacity: number) {
    this.capacity = capacity
  }

  get length(): number {
    return this.rows.length
  }

  get eventCount(): number {
    return this.events
  }

  /** Row `index`, newest first. */
  at(index: number): Row | undefined {
    return this.rows[this.rows.length - 1 - index]
  }

  /** The place of the row, newest first; -1 where it is gone. */
  indexOf(key: string): number {
    const row = this.byKey.get(key)
    if (row === undefined) return -1
    const at = this.rows.indexOf(row, lowerBound(this.rows, row.anchor))
    return at < 0 ? -1 : this.rows.length - 1 - at
  }

  get(key: string): Row | undefined {
    return this.byKey.get(key)
  }

  has(id: number): boolean {
    return this.seen.has(id)
  }

  /** The newest time of any event taken, in milliseconds; 0 before the first. */
  get newestTs(): number {
    return this.maxTs
  }

  /** Whether an end that comes now belongs to a row that is here. */
  wants(event: EventJson): boolean {
    return ENDS.has(event.type) && event.tool_use_id !== undefined && this.calls.has(callKey(event))
  }

  /** Takes events of any order and age; known ones are skipped. Gives how many were new. */
  add(events: readonly EventJson[]): number {
    const ordered = [...events].sort((a, b) => a.id - b.id)
    let added = 0
    for (const event of ordered) {
      if (this.seen.has(event.id)) continue
      this.seen.add(event.id)
      this.maxTs = Math.max(this.maxTs, event.ts_ms)
      this.events += 1
      added += 1
      this.place(event)
    }
    return added
  }

  /** Drops the oldest rows until the capacity holds. Gives how many events went. */
  trim(): number {
    const before = this.events
    let drop = 0
    while (this.events > this.capacity && drop < this.rows.length) {
      const row = this.rows[drop]
      if (row === undefined) break
      this.forget(row)
      drop += 1
    }
    if (drop > 0) {
      this.rows.splice(0, drop)
      this.forgetClosersBefore(this.rows[0]?.anchor ?? Number.MAX_SAFE_INTEGER)
    }
    return before - this.events
  }

  /** How the call stands. `endsHidden`: see `hidesEnds` of the filter. */
  status(row: CallRow, now: number, options: { endsHidden: boolean }): RowStatus {
    if (row.end !== null) return endStatus(row.end)
    if (row.denied) return 'denied'
    const start = face(row)
    const closer = this.closerAfter(start)
    if (closer !== null) return closer === 'PostToolBatch' ? 'ended' : 'abandoned'
    if (options.endsHidden || now - start.ts_ms > RUNNING_MAX_MS) return 'unknown'
    return 'running'
  }

  private place(event: EventJson): void {
    if (event.type === START || ENDS.has(event.type)) {
      this.placeCall(event)
      return
    }
    this.noteCloser(event)
    if (event.type === 'PermissionDenied' && event.tool_use_id !== undefined) this.markDenied(event)
    this.insert({ kind: 'event', key: `e${event.id}`, anchor: event.id, event })
  }

  private placeCall(event: EventJson): void {
    const isStart = event.type === START
    const fresh: CallRow = { kind: 'call', key: `c${event.id}`, anchor: event.id, start: isStart ? event : null, end: isStart ? null : event, denied: false }
    if (event.tool_use_id === undefined) {
      this.placeWithoutId(fresh, event)
      return
    }
    const key = callKey(event)
    const known = this.calls.get(key)
    if (known === undefined) {
      this.calls.set(key, fresh)
      this.insert(fresh)
      return
    }
    const taken = isStart ? known.start !== null : known.end !== null
    if (taken) {
      // A second Pre or Post of one call (a replay under another id): shown, not merged.
      this.insert(fresh)
      return
    }
    this.calls.set(key, this.join(known, event))
  }

  /** By order within session, agent and tool; a half with the same summary is preferred, the oldest of them first. */
  private placeWithoutId(fresh: CallRow, event: EventJson): void {
    const key = [event.session_id, event.agent_id ?? '', event.tool_name ?? ''].join('\u0000')
    const group = this.waiting.get(key) ?? { starts: [], ends: [] }
    this.waiting.set(key, group)
    const isStart = fresh.start !== null
    const halves = (isStart ? group.ends : group.starts).filter((row) => (isStart ? row.anchor > event.id : row.anchor < event.id && this.closerAfter(face(row), event.id) === null))
    const half = halves.find((row) => face(row).summary === event.summary) ?? halves[0]
    if (half === undefined) {
      const list = isStart ? group.starts : group.ends
      list.splice(lowerBound(list, fresh.anchor), 0, fresh)
      if (list.length > WAITING_MAX) list.shift()
      this.insert(fresh)
      return
    }
    remove(isStart ? group.ends : group.starts, half)
    this.join(half, event)
  }

  private join(known: CallRow, event: EventJson): CallRow {
    const isStart = event.type === START
    const start = isStart ? event : known.start
    const end = isStart ? known.end : event
    const anchor = start?.id ?? known.anchor
    const joined: CallRow = { ...known, start, end, anchor }
    this.replace(known, joined)
    return joined
  }

  private markDenied(event: EventJson): void {
    const key = callKey(event)
    const known = this.calls.get(key)
    if (known === undefined) return
    const denied: CallRow = { ...known, denied: true }
    this.calls.set(key, denied)
    this.replace(known, denied)
  }

  private noteCloser(event: EventJson): void {
    const key = event.type === CLOSES_SESSION ? sessionScope(event) : CLOSES_AGENT.has(event.type) ? agentScope(event) : null
    if (key === null) return
    const closers = this.closers.get(key) ?? { ids: [], types: new Map<number, string>() }
    this.closers.set(key, closers)
    const at = lowerBoundOf(closers.ids, event.id)
    closers.ids.splice(at, 0, event.id)
    closers.types.set(event.id, event.type)
  }

  /** The first event after `start` (and before `limit`) that ends its agent's or session's open calls. */
  private closerAfter(start: EventJson, limit = Number.MAX_SAFE_INTEGER): string | null {
    let first: number | null = null
    let type: string | null = null
    for (const scope of [agentScope(start), sessionScope(start)]) {
      const closers = this.closers.get(scope)
      const id = closers?.ids[lowerBoundOf(closers.ids, start.id)]
      if (closers === undefined || id === undefined || id >= limit || (first !== null && id >= first)) continue
      first = id
      type = closers.types.get(id) ?? null
    }
    return type
  }

  private insert(row: Row): void {
    this.byKey.set(row.key, row)
    const last = this.rows.at(-1)
    if (last === undefined || last.anchor <= row.anchor) this.rows.push(row)
    else this.rows.splice(lowerBound(this.rows, row.anchor), 0, row)
  }

  private replace(old: Row, next: Row): void {
    const at = this.rows.indexOf(old, lowerBound(this.rows, old.anchor))
    if (at < 0) return
    if (old.anchor === next.anchor) {
      this.rows[at] = next
      this.byKey.set(next.key, next)
      return
    }
    this.rows.splice(at, 1)
    this.insert(next)
  }

  private forget(row: Row): void {
    this.byKey.delete(row.key)
    for (const event of eventsOf(row)) {
      this.seen.delete(event.id)
      this.events -= 1
    }
    if (row.kind === 'event') return
    const event = face(row)
    if (event.tool_use_id !== undefined) {
      const key = callKey(event)
      if (this.calls.get(key) === row) this.calls.delete(key)
      return
    }
    const key = [event.session_id, event.agent_id ?? '', event.tool_name ?? ''].join('\u0000')
    const group = this.waiting.get(key)
    if (group === undefined) return
    remove(group.starts, row)
    remove(group.ends, row)
    if (group.starts.length + group.ends.length === 0) this.waiting.delete(key)
  }

  private forgetClosersBefore(id: number): void {
    for (const [scope, closers] of this.closers) {
      const gone = closers.ids.splice(0, lowerBoundOf(closers.ids, id))
      for (const old of gone) closers.types.delete(old)
      if (closers.ids.length === 0) this.closers.delete(scope)
    }
  }
}

function endStatus(end: EventJson): RowStatus {
  if (end.type !== 'PostToolUseFailure' && end.error === undefined) return 'succeeded'
  if (end.error?.type === 'interrupted') return 'interrupted'
  return 'failed'
}

function callKey(event: EventJson): string {
  return [event.session_id, event.agent_id ?? '', event.tool_use_id ?? ''].join('\u0000')
}

function agentScope(event: EventJson): string {
  return `a\u0000${event.session_id}\u0000${event.agent_id ?? ''}`
}

function sessionScope(event: EventJson): string {
  return `s\u0000${event.session_id}`
}

function lowerBound(rows: readonly Row[], anchor: number): number {
  let low = 0
  let high = rows.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((rows[middle]?.anchor ?? 0) < anchor) low = middle + 1
    else high = middle
  }
  return low
}

function lowerBoundOf(ids: readonly number[], id: number): number {
  let low = 0
  let high = ids.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((ids[middle] ?? 0) < id) low = middle + 1
    else high = middle
  }
  return low
}

function remove(rows: CallRow[], row: CallRow): void {
  const at = rows.indexOf(row)
  if (at >= 0) rows.splice(at, 1)
}
