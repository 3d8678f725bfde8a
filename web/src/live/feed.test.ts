import { describe, expect, it, vi } from 'vitest'
import type { EventQuery } from '../api/client'
import { ApiError } from '../api/client'
import type { EventJson, Page } from '../api/types'
import { event, post, pre } from '../test/event'
import { Feed, GAP_MAX_EVENTS, GAP_OVERLAP_MS } from './feed'
import { matches, NO_FILTER } from './filter'

/** A server in memory: pages of `limit` by cursor, newest first. */
class Server {
  events: EventJson[] = []
  fetch = vi.fn(async (query: EventQuery): Promise<Page<EventJson>> => {
    const filter = { ...NO_FILTER, ...Object.fromEntries(Object.entries(query).filter(([key]) => key in NO_FILTER)) }
    const before = query.cursor === undefined ? Infinity : Number(query.cursor)
    const all = this.events.filter((one) => one.id < before && matches(filter, one)).sort((a, b) => b.id - a.id)
    const items = all.slice(0, query.limit)
    return { items, next_cursor: all.length > items.length ? String(items.at(-1)!.id) : null }
  })
}

function many(first: number, count: number): EventJson[] {
  return Array.from({ length: count }, (_, i) => event(first + i))
}

async function ready(events: EventJson[], capacity?: number): Promise<{ server: Server; feed: Feed }> {
  const server = new Server()
  server.events = events
  const feed = new Feed(server.fetch, NO_FILTER, capacity)
  await feed.reload()
  return { server, feed }
}

const ids = (feed: Feed): number[] => Array.from({ length: feed.log.length }, (_, i) => feed.log.at(i)!.anchor / 4096)

describe('Feed', () => {
  it('loads the newest page, then older ones by cursor until the beginning', async () => {
    const { feed } = await ready(many(1, 1450))
    expect(feed.log.length).toBe(200)
    for (const expected of [700, 1200, 1450]) {
      expect(feed.state.value.older).toBe('more')
      await feed.loadOlder()
      expect(feed.log.length).toBe(expected)
    }
    expect(feed.state.value.older).toBe('end')
    expect(ids(feed)).toEqual(Array.from({ length: 1450 }, (_, i) => 1450 - i))
  })

  it('adds live events that match the filter', async () => {
    const { feed } = await ready([])
    await feed.setFilter({ ...NO_FILTER, app: 'app' })
    feed.receive([event(5), event(6, { app: 'other' })])
    expect(ids(feed)).toEqual([5])
  })

  it('takes the end of a call that is shown, also where the search does not fit it', async () => {
    const { feed } = await ready([pre(1, 'a', { summary: 'needle' })])
    await feed.setFilter({ ...NO_FILTER, q: 'needle' })
    feed.receive([post(2, 'a', 1, { summary: 'something else' })])
    expect(feed.log.length).toBe(1)
    expect(feed.log.eventCount).toBe(2)
  })

  it('holds while paused and loses nothing when it resumes', async () => {
    const { feed } = await ready(many(1, 3))
    feed.pause()
    feed.receive([event(4)])
    feed.receive([event(4), event(5)])
    expect(feed.log.length).toBe(3)
    expect(feed.state.value.held).toBe(2)
    await feed.resume()
    expect(ids(feed)).toEqual([5, 4, 3, 2, 1])
    expect(feed.state.value.held).toBe(0)
  })

  it('reads again from the server when more was held than can be kept', async () => {
    const { server, feed } = await ready([], 10)
    feed.pause()
    server.events = many(1, 25)
    feed.receive(server.events)
    expect(feed.state.value.held).toBe(25)
    await feed.resume()
    expect(ids(feed).slice(0, 3)).toEqual([25, 24, 23])
  })

  it('fills the gap of a lost connection by cursor', async () => {
    const { server, feed } = await ready(many(1, 10))
    server.events = many(1, 510)
    await feed.fillGap()
    expect(feed.log.length).toBe(510)
  })

  it('reads back over the gap for what was replayed late', async () => {
    const base = 10 * GAP_OVERLAP_MS
    const { server, feed } = await ready([event(base)])
    server.events = [event(base), event(base - 1000)]
    await feed.fillGap()
    expect(feed.log.length).toBe(2)
  })

  it('stops reading a gap at a page that is all known', async () => {
    const { server, feed } = await ready(many(1, 3000))
    for (let i = 0; i < 3; i += 1) await feed.loadOlder()
    server.events = many(1, 3010)
    server.fetch.mockClear()
    await feed.fillGap()
    expect(server.fetch).toHaveBeenCalledTimes(2)
    expect(ids(feed)[0]).toBe(3010)
  })

  it('holds the gap too while paused', async () => {
    const { server, feed } = await ready(many(1, 10))
    feed.pause()
    server.events = many(1, 15)
    await feed.fillGap()
    expect(feed.log.length).toBe(10)
    expect(feed.state.value.held).toBe(5)
  })

  it('starts again at the newest where the gap is too long', async () => {
    const { server, feed } = await ready(many(1, 10))
    server.events = many(1, GAP_MAX_EVENTS + 1000)
    await feed.fillGap()
    expect(feed.log.length).toBe(200)
    expect(ids(feed)[0]).toBe(GAP_MAX_EVENTS + 1000)
    expect(feed.state.value.older).toBe('more')
  })

  it('keeps what streams in while the first page loads', async () => {
    const server = new Server()
    server.events = many(1, 3)
    const feed = new Feed(server.fetch, NO_FILTER)
    const loading = feed.reload()
    feed.receive([event(4)])
    await loading
    expect(ids(feed)).toEqual([4, 3, 2, 1])
  })

  it('forgets the answer for a filter that is no longer asked for', async () => {
    const server = new Server()
    const slow: { answer?: (page: Page<EventJson>) => void } = {}
    server.fetch.mockImplementationOnce(() => new Promise((resolve) => (slow.answer = resolve)))
    const feed = new Feed(server.fetch, NO_FILTER)
    const first = feed.reload()
    server.events = [event(9, { app: 'x' })]
    await feed.setFilter({ ...NO_FILTER, app: 'x' })
    slow.answer?.({ items: [event(1)], next_cursor: null })
    await first
    expect(ids(feed)).toEqual([9])
  })

  it('bounds its memory and says so', async () => {
    const { feed } = await ready([], 100)
    feed.receive(many(1, 250))
    expect(feed.log.eventCount).toBe(100)
    expect(ids(feed)[0]).toBe(250)
    expect(feed.state.value.older).toBe('full')
  })

  it('tells a failure and comes back', async () => {
    const server = new Server()
    server.fetch.mockRejectedValueOnce(new ApiError({ type: 'about:blank', title: 'Busy', status: 503, detail: 'too many readers' }))
    const feed = new Feed(server.fetch, NO_FILTER)
    await feed.reload()
    expect(feed.state.value.phase).toBe('error')
    expect(feed.state.value.problem?.detail).toBe('too many readers')
    server.events = many(1, 2)
    await feed.fillGap()
    expect(feed.state.value.phase).toBe('ready')
    expect(feed.log.length).toBe(2)
  })

  it('keeps its rows when older ones fail, and offers them again', async () => {
    const { server, feed } = await ready(many(1, 300))
    server.fetch.mockRejectedValueOnce(new Error('lost'))
    await feed.loadOlder()
    expect(feed.state.value.older).toBe('error')
    await feed.loadOlder()
    expect(feed.log.length).toBe(300)
  })
})
