// What the Live page shows: one log for one filter, filled from three sides: the newest page, older pages by cursor, and the
// stream. Gaps (a lost connection, dropped frames) are filled by reading the newest pages again until they meet what is known.

import { shallowRef, type ShallowRef } from 'vue'
import { ApiError, type EventQuery } from '../api/client'
import type { EventJson, Page, Problem } from '../api/types'
import { texts } from '../texts'
import { type Filter, filterToRequest, matches, sameFilter } from './filter'
import { RowLog } from './rows'

/** The most events that are kept in memory; the oldest go first. */
export const CAPACITY_EVENTS = 100_000
/** Events of the first page: enough for any screen. */
export const PAGE_EVENTS = 200
/** Events of each further page: fewer requests on the way back through history. */
export const OLDER_PAGE_EVENTS = 500
/** A gap of more events than this is not filled: the page starts again at the newest. */
export const GAP_MAX_EVENTS = 4_000
/** A replayed event can be older than what is known: a gap is read until a whole page of known events, or this much further
 * back than the newest known one, in milliseconds. */
export const GAP_OVERLAP_MS = 60_000

export interface FeedState {
  readonly phase: 'loading' | 'ready' | 'error'
  readonly problem: Problem | null
  /** Grows with every change of the rows. */
  readonly version: number
  readonly paused: boolean
  /** Events that came while paused. */
  readonly held: number
  readonly older: 'more' | 'loading' | 'end' | 'full' | 'error'
}

export type FetchEvents = (query: EventQuery, signal: AbortSignal) => Promise<Page<EventJson>>

export class Feed {
  readonly state: ShallowRef<FeedState>
  log: RowLog
  private readonly fetch: FetchEvents
  private readonly capacity: number
  private filter: Filter
  private cursor: string | null = null
  private held = new Map<number, EventJson>()
  private heldTooMuch = false
  private early: EventJson[] = []
  private abort = new AbortController()
  private filling = false
  private fillAgain = false

  constructor(fetch: FetchEvents, filter: Filter, capacity = CAPACITY_EVENTS) {
    this.fetch = fetch
    this.filter = filter
    this.capacity = capacity
    this.log = new RowLog(capacity)
    this.state = shallowRef<FeedState>({ phase: 'loading', problem: null, version: 0, paused: false, held: 0, older: 'more' })
  }

  /** Starts again with this filter; the same filter changes nothing. */
  async setFilter(filter: Filter): Promise<void> {
    if (sameFilter(filter, this.filter)) return
    this.filter = filter
    await this.reload()
  }

  /** Reads the newest page into an empty log. */
  async reload(): Promise<void> {
    this.abort.abort()
    const abort = new AbortController()
    this.abort = abort
    this.log = new RowLog(this.capacity)
    this.cursor = null
    this.early = []
    this.clearHeld()
    this.update({ phase: 'loading', problem: null, held: 0, older: 'more' })
    try {
      const page = await this.fetch({ ...filterToRequest(this.filter), limit: PAGE_EVENTS }, abort.signal)
      if (abort.signal.aborted) return
      this.log.add(page.items)
      this.cursor = page.next_cursor
      this.update({ phase: 'ready', older: page.next_cursor === null ? 'end' : 'more' })
      const early = this.early
      this.early = []
      this.receive(early)
    } catch (error) {
      if (!abort.signal.aborted) this.update({ phase: 'error', problem: problemOf(error) })
    }
  }

  /** Reads the next older page; quiet where there is none or one is under way. */
  async loadOlder(): Promise<void> {
    const { phase, older } = this.state.value
    if (phase !== 'ready' || (older !== 'more' && older !== 'error') || this.cursor === null) return
    const { signal } = this.abort
    this.update({ older: 'loading' })
    try {
      const page = await this.fetch({ ...filterToRequest(this.filter), cursor: this.cursor, limit: OLDER_PAGE_EVENTS }, signal)
      if (signal.aborted) return
      this.log.add(page.items)
      this.cursor = page.next_cursor
      const isFull = this.log.eventCount >= this.capacity
      this.update({ older: isFull ? 'full' : page.next_cursor === null ? 'end' : 'more' })
    } catch {
      if (!signal.aborted) this.update({ older: 'error' })
    }
  }

  /** Takes live events. */
  receive(events: readonly EventJson[]): void {
    if (this.state.value.phase === 'loading') {
      this.early.push(...events)
      return
    }
    if (this.state.value.phase !== 'ready') return
    const wanted = events.filter((event) => !this.log.has(event.id) && (matches(this.filter, event) || this.log.wants(event)))
    if (wanted.length > 0) this.take(wanted)
  }

  pause(): void {
    if (!this.state.value.paused) this.update({ paused: true })
  }

  async resume(): Promise<void> {
    if (!this.state.value.paused) return
    const held = [...this.held.values()]
    const tooMuch = this.heldTooMuch
    this.clearHeld()
    this.update({ paused: false, held: 0 })
    if (tooMuch) await this.reload()
    else this.take(held)
  }

  /** Fetches what the stream did not bring. Calls that come meanwhile lead to one more round. */
  async fillGap(): Promise<void> {
    if (this.state.value.phase === 'error') return this.reload()
    if (this.state.value.phase !== 'ready') return
    if (this.filling) {
      this.fillAgain = true
      return
    }
    this.filling = true
    const { signal } = this.abort
    try {
      await this.readGap(signal)
    } catch {
      // The connection is gone again: the next one fills the whole gap.
    }
    this.filling = false
    if (this.fillAgain) {
      this.fillAgain = false
      await this.fillGap()
    }
  }

  dispose(): void {
    this.abort.abort()
  }

  private async readGap(signal: AbortSignal): Promise<void> {
    const knownTs = this.log.newestTs
    let cursor: string | null = null
    const found: EventJson[] = []
    do {
      const query = filterToRequest(this.filter)
      const page: Page<EventJson> = await this.fetch(cursor === null ? { ...query, limit: PAGE_EVENTS } : { ...query, cursor, limit: OLDER_PAGE_EVENTS }, signal)
      if (signal.aborted) return
      found.push(...page.items)
      cursor = page.next_cursor
      const oldest = page.items.at(-1)
      const isKnown = page.items.every((event) => this.log.has(event.id) || this.held.has(event.id))
      if (oldest === undefined || isKnown || oldest.ts_ms < knownTs - GAP_OVERLAP_MS) break
      if (found.length > GAP_MAX_EVENTS) {
        if (this.state.value.paused) this.heldTooMuch = true
        else await this.reload()
        return
      }
    } while (cursor !== null)
    const missing = found.filter((event) => !this.log.has(event.id) && !this.held.has(event.id))
    if (missing.length > 0) this.take(missing)
  }

  private take(events: readonly EventJson[]): void {
    if (this.state.value.paused) {
      this.hold(events)
      return
    }
    this.log.add(events)
    const trimmed = this.log.trim() > 0
    this.update(trimmed ? { older: 'full' } : {})
  }

  private hold(events: readonly EventJson[]): void {
    const fresh = events.filter((event) => !this.held.has(event.id))
    if (!this.heldTooMuch) for (const event of fresh) this.held.set(event.id, event)
    if (this.held.size > this.capacity) {
      // More than can be kept. They are all on disk, so resuming reads the newest again.
      this.heldTooMuch = true
      this.held = new Map()
    }
    this.update({ held: this.state.value.held + fresh.length })
  }

  private clearHeld(): void {
    this.held = new Map()
    this.heldTooMuch = false
  }

  private update(change: Partial<FeedState>): void {
    this.state.value = { ...this.state.value, ...change, version: this.state.value.version + 1 }
  }
}

export function problemOf(error: unknown): Problem {
  if (error instanceof ApiError) return error.problem
  return { type: 'about:blank', title: texts.errors.title, status: 0, detail: error instanceof Error ? error.message : String(error) }
}
