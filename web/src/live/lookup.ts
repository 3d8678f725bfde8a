// How calls ended of which the rows show no end: denied, interrupted, or ended by events that the filter left out. The
// server has one record per call; it is asked for the calls on the screen only, a few at a time.

import { shallowRef, type ShallowRef } from 'vue'
import type { CallJson, EventJson, Page } from '../api/types'
import type { CallRow, RowStatus } from './rows'

/** Calls asked for at once. */
export const LOOKUPS_AT_ONCE = 6
/** A call that still ran is asked for again after this, in milliseconds. */
export const ASK_AGAIN_MS = 5_000
/** Answers that are kept. */
export const ANSWERS_MAX = 2_000

export interface Answer {
  readonly status: RowStatus
  readonly durationMs: number | null
}

export interface CallsQuery {
  session: string
  tool: string
  from: number
  to: number
  limit: number
}

export type FetchCalls = (query: CallsQuery) => Promise<Page<CallJson>>

const STATUSES: ReadonlySet<string> = new Set<RowStatus>(['running', 'succeeded', 'failed', 'denied', 'interrupted', 'ended', 'abandoned'])

export class CallLookup {
  /** Grows with every answer. */
  readonly version: ShallowRef<number> = shallowRef(0)
  private readonly fetch: FetchCalls
  private readonly answers = new Map<number, Answer>()
  private readonly askAgainAt = new Map<number, number>()
  private queue: EventJson[] = []
  private underWay = 0

  constructor(fetch: FetchCalls) {
    this.fetch = fetch
  }

  /** What the server said of the call that began with this event. */
  get(start: EventJson | null): Answer | undefined {
    return start === null ? undefined : this.answers.get(start.id)
  }

  /** Asks for those of the rows that have no end. What was waiting from before is no longer on the screen. */
  want(rows: readonly CallRow[], now: number): void {
    this.queue = rows.flatMap((row) => (row.end === null && row.start !== null && this.mayAsk(row.start.id, now) ? [row.start] : []))
    this.next(now)
  }

  private mayAsk(id: number, now: number): boolean {
    return now >= (this.askAgainAt.get(id) ?? 0)
  }

  private next(now: number): void {
    while (this.underWay < LOOKUPS_AT_ONCE) {
      const start = this.queue.shift()
      if (start === undefined) return
      this.underWay += 1
      this.askAgainAt.set(start.id, now + ASK_AGAIN_MS)
      void this.ask(start).finally(() => {
        this.underWay -= 1
        this.next(now)
      })
    }
  }

  private async ask(start: EventJson): Promise<void> {
    try {
      // The record of a call stands at the time of its first event.
      const page = await this.fetch({ session: start.session_id, tool: start.tool_name ?? '', from: start.ts_ms, to: start.ts_ms + 1, limit: 100 })
      const call = page.items.find((one) => one.start_event === start.id)
      if (call !== undefined && STATUSES.has(call.status)) this.keep(start.id, { status: call.status as RowStatus, durationMs: call.duration_ms })
    } catch {
      // Unknown stays unknown; the row is asked for again while it is on the screen.
    }
  }

  private keep(id: number, answer: Answer): void {
    this.answers.set(id, answer)
    if (answer.status !== 'running') this.askAgainAt.set(id, Number.POSITIVE_INFINITY)
    for (const oldest of this.answers.keys()) {
      if (this.answers.size <= ANSWERS_MAX) break
      this.answers.delete(oldest)
      this.askAgainAt.delete(oldest)
    }
    this.version.value += 1
  }
}
