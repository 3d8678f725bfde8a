// The WebSocket of `/stream`, kept open: reconnects with backoff, notices a silent connection, and tells its state.
// It does not fill gaps; its listener does that on `opened`.

import type { Frame } from '../api/types'

/** The first pause before a new attempt; it doubles up to the longest. In milliseconds. */
export const BACKOFF_FIRST_MS = 500
export const BACKOFF_LONGEST_MS = 15_000
/** The server speaks at least every 5 s; a connection silent for longer than this is dead. In milliseconds. */
export const SILENCE_MAX_MS = 20_000

export type SocketState = 'connecting' | 'live' | 'reconnecting' | 'closed'

export interface SocketListener {
  state(state: SocketState): void
  /** A connection stands (the first frame came): what happened since the last one is to be fetched. */
  opened(): void
  frame(frame: Frame): void
  /** An attempt failed; whether to go on (false where signed out). */
  mayRetry(): Promise<boolean>
}

/** What the socket needs of the world; tests give their own. */
export interface SocketWorld {
  open(url: string): WebSocket
  setTimeout(run: () => void, ms: number): number
  clearTimeout(id: number): void
  /** 0 to 1. */
  random(): number
}

export const browserWorld: SocketWorld = {
  open: (url) => new WebSocket(url),
  setTimeout: (run, ms) => window.setTimeout(run, ms),
  clearTimeout: (id) => window.clearTimeout(id),
  random: () => Math.random(),
}

export class StreamSocket {
  private readonly url: string
  private readonly listener: SocketListener
  private readonly world: SocketWorld
  private socket: WebSocket | null = null
  private attempts = 0
  private timer: number | null = null
  private watchdog: number | null = null
  private greeted = false
  private stopped = true

  constructor(url: string, listener: SocketListener, world: SocketWorld = browserWorld) {
    this.url = url
    this.listener = listener
    this.world = world
  }

  start(): void {
    if (!this.stopped) return
    this.stopped = false
    this.attempts = 0
    this.listener.state('connecting')
    this.connect()
  }

  stop(): void {
    this.stopped = true
    this.clear()
    this.detach()
    this.listener.state('closed')
  }

  /** Tries at once instead of waiting for the backoff. */
  retryNow(): void {
    if (this.stopped || this.timer === null) return
    this.attempts = 0
    this.clear()
    this.connect()
  }

  private connect(): void {
    this.greeted = false
    const socket = this.world.open(this.url)
    this.socket = socket
    socket.onmessage = (message) => this.receive(message.data)
    socket.onclose = () => this.lost()
    this.watch()
  }

  private receive(data: unknown): void {
    this.watch()
    const frame = parseFrame(data)
    if (!this.greeted) {
      this.greeted = true
      this.attempts = 0
      this.listener.state('live')
      this.listener.opened()
    }
    if (frame !== null) this.listener.frame(frame)
  }

  private lost(): void {
    this.detach()
    this.clear()
    if (this.stopped) return
    this.listener.state('reconnecting')
    void this.listener.mayRetry().then((go) => {
      if (this.stopped || this.timer !== null || this.socket !== null) return
      if (!go) this.stop()
      else this.timer = this.world.setTimeout(() => this.again(), backoff(this.attempts, this.world.random()))
    })
  }

  private again(): void {
    this.timer = null
    this.attempts += 1
    this.connect()
  }

  private watch(): void {
    if (this.watchdog !== null) this.world.clearTimeout(this.watchdog)
    this.watchdog = this.world.setTimeout(() => this.lost(), SILENCE_MAX_MS)
  }

  private clear(): void {
    if (this.timer !== null) this.world.clearTimeout(this.timer)
    if (this.watchdog !== null) this.world.clearTimeout(this.watchdog)
    this.timer = null
    this.watchdog = null
  }

  private detach(): void {
    if (this.socket === null) return
    this.socket.onmessage = null
    this.socket.onclose = null
    this.socket.close()
    this.socket = null
  }
}

/** Half of the step fixed, half by chance, so that many pages do not come back at the same moment. */
export function backoff(attempts: number, random: number): number {
  const step = Math.min(BACKOFF_LONGEST_MS, BACKOFF_FIRST_MS * 2 ** attempts)
  return step / 2 + (step / 2) * random
}

/** Null for anything that is no frame; unknown kinds pass, their readers ignore them. */
export function parseFrame(data: unknown): Frame | null {
  if (typeof data !== 'string') return null
  try {
    const frame: unknown = JSON.parse(data)
    const isFrame = typeof frame === 'object' && frame !== null && 'type' in frame && typeof frame.type === 'string' && 'data' in frame
    return isFrame ? (frame as Frame) : null
  } catch {
    return null
  }
}
