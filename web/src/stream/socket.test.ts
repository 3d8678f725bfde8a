import { beforeEach, describe, expect, it, vi } from 'vitest'
import { backoff, BACKOFF_LONGEST_MS, parseFrame, SILENCE_MAX_MS, type SocketListener, type SocketState, type SocketWorld, StreamSocket } from './socket'

class FakeSocket {
  onmessage: ((message: { data: unknown }) => void) | null = null
  onclose: (() => void) | null = null
  closed = false
  close(): void {
    this.closed = true
  }
}

let sockets: FakeSocket[]
let timers: Map<number, { run: () => void; ms: number }>
let states: SocketState[]
let opened: number
let mayRetry: boolean
let world: SocketWorld
let listener: SocketListener

beforeEach(() => {
  sockets = []
  timers = new Map()
  states = []
  opened = 0
  mayRetry = true
  let next = 1
  world = {
    open: () => {
      const socket = new FakeSocket()
      sockets.push(socket)
      return socket as unknown as WebSocket
    },
    setTimeout: (run, ms) => {
      timers.set(next, { run, ms })
      return next++
    },
    clearTimeout: (id) => void timers.delete(id),
    random: () => 1,
  }
  listener = { state: (state) => states.push(state), opened: () => (opened += 1), frame: vi.fn(), mayRetry: async () => mayRetry }
})

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0))
const delays = (): number[] => [...timers.values()].map((timer) => timer.ms)
function fire(ms: number): void {
  const found = [...timers].find(([, timer]) => timer.ms === ms)
  if (found === undefined) throw new Error(`no timer of ${ms} ms, there are ${delays().join(', ')}`)
  timers.delete(found[0])
  found[1].run()
}

describe('StreamSocket', () => {
  it('is live with the first frame, and then asks for the gap', () => {
    new StreamSocket('ws://x', listener, world).start()
    expect(states).toEqual(['connecting'])
    sockets[0]!.onmessage?.({ data: '{"type":"initial","data":[]}' })
    expect(states).toEqual(['connecting', 'live'])
    expect(opened).toBe(1)
    expect(listener.frame).toHaveBeenCalledWith({ type: 'initial', data: [] })
  })

  it('comes back with growing pauses, and starts anew after a connection', async () => {
    new StreamSocket('ws://x', listener, world).start()
    for (const ms of [500, 1000, 2000]) {
      sockets.at(-1)!.onclose?.()
      await settle()
      fire(ms)
    }
    sockets.at(-1)!.onmessage?.({ data: '{"type":"initial","data":[]}' })
    sockets.at(-1)!.onclose?.()
    await settle()
    fire(500)
    expect(sockets).toHaveLength(5)
  })

  it('takes a silent connection for a dead one', async () => {
    new StreamSocket('ws://x', listener, world).start()
    sockets[0]!.onmessage?.({ data: '{"type":"initial","data":[]}' })
    fire(SILENCE_MAX_MS)
    expect(sockets[0]!.closed).toBe(true)
    await settle()
    expect(states.at(-1)).toBe('reconnecting')
    expect(delays()).toEqual([500])
  })

  it('stops where the session is over', async () => {
    mayRetry = false
    new StreamSocket('ws://x', listener, world).start()
    sockets[0]!.onclose?.()
    await settle()
    expect(states.at(-1)).toBe('closed')
    expect(timers.size).toBe(0)
  })

  it('leaves nothing behind when stopped', () => {
    const socket = new StreamSocket('ws://x', listener, world)
    socket.start()
    socket.stop()
    expect(timers.size).toBe(0)
    expect(sockets[0]!.closed).toBe(true)
    expect(sockets[0]!.onclose).toBeNull()
  })

  it('tries at once when asked', async () => {
    const socket = new StreamSocket('ws://x', listener, world)
    socket.start()
    sockets[0]!.onclose?.()
    await settle()
    socket.retryNow()
    expect(sockets).toHaveLength(2)
  })
})

it('bounds the backoff', () => {
  expect(backoff(0, 0)).toBe(250)
  expect(backoff(50, 1)).toBe(BACKOFF_LONGEST_MS)
})

it('takes no frame for a frame that is none', () => {
  for (const data of ['', 'x', '1', 'null', '[]', '{}', '{"type":1,"data":2}', 7]) expect(parseFrame(data)).toBeNull()
  expect(parseFrame('{"type":"later","data":1}')).toEqual({ type: 'later', data: 1 })
})
