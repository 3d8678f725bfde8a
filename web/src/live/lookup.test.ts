import { describe, expect, it, vi } from 'vitest'
import type { CallJson } from '../api/types'
import { post, pre } from '../test/event'
import { ASK_AGAIN_MS, CallLookup, type CallsQuery, LOOKUPS_AT_ONCE } from './lookup'
import { type CallRow, RowLog } from './rows'

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0))

function rowsOf(...events: ReturnType<typeof pre>[]): CallRow[] {
  const log = new RowLog(100)
  log.add(events)
  return Array.from({ length: log.length }, (_, i) => log.at(i) as CallRow)
}

function call(start_event: number, status: string): CallJson {
  return { id: 1, tool_use_id: null, app: '', session_id: 's1', agent_id: null, agent_type: null, tool_name: 'Bash', summary: '', status, started_ms: 0, ended_ms: 0, duration_ms: 7, start_event, end_event: null, error_type: null, tool_chain: { previous_tool: null, next_tool: null, is_parallel: false } }
}

describe('CallLookup', () => {
  it('asks for calls without an end, by session, tool and time, and keeps the answer', async () => {
    const fetch = vi.fn(async (_: CallsQuery) => ({ items: [call(99, 'failed'), call(5 * 4096, 'denied')], next_cursor: null }))
    const lookup = new CallLookup(fetch)
    const [open] = rowsOf(pre(5, 'a'))
    const [done] = rowsOf(pre(6, 'b'), post(7, 'b', 1))
    lookup.want([open!, done!], 0)
    await settle()
    expect(fetch.mock.calls).toEqual([[{ session: 's1', tool: 'Bash', from: 5, to: 6, limit: 100 }]])
    expect(lookup.get(open!.start)).toEqual({ status: 'denied', durationMs: 7 })
    lookup.want([open!], 1e12)
    expect(fetch).toHaveBeenCalledTimes(1)
  })

  it('asks again for what still ran, not at once', async () => {
    const fetch = vi.fn(async () => ({ items: [call(5 * 4096, 'running')], next_cursor: null }))
    const lookup = new CallLookup(fetch)
    const rows = rowsOf(pre(5, 'a'))
    for (const now of [0, 1, ASK_AGAIN_MS]) {
      lookup.want(rows, now)
      await settle()
    }
    expect(fetch).toHaveBeenCalledTimes(2)
  })

  it('asks a few at a time, and drops what is no longer wanted', async () => {
    const answers: (() => void)[] = []
    const fetch = vi.fn(() => new Promise<{ items: CallJson[]; next_cursor: null }>((resolve) => answers.push(() => resolve({ items: [], next_cursor: null }))))
    const lookup = new CallLookup(fetch)
    lookup.want(rowsOf(...Array.from({ length: 20 }, (_, i) => pre(i + 1, `c${i}`))), 0)
    expect(fetch).toHaveBeenCalledTimes(LOOKUPS_AT_ONCE)
    lookup.want([], 0)
    for (const answer of answers) answer()
    await settle()
    expect(fetch).toHaveBeenCalledTimes(LOOKUPS_AT_ONCE)
  })

  it('leaves a call unknown where the server cannot tell', async () => {
    const lookup = new CallLookup(async () => Promise.reject(new Error('lost')))
    const [row] = rowsOf(pre(5, 'a'))
    lookup.want([row!], 0)
    await settle()
    expect(lookup.get(row!.start)).toBeUndefined()
  })
})
