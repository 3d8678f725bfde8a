// The one connection of the page: its state, the dropped frames, the pulse, and who listens to events.

import { defineStore } from 'pinia'
import { ref, shallowRef } from 'vue'
import { api, ApiError, streamUrl } from '../api/client'
import type { CostFrameJson, EventJson, Frame, SummaryJson } from '../api/types'
import { Pulse } from './pulse'
import { StreamSocket, type SocketState } from './socket'

export interface EventListener {
  /** Events as they are committed, oldest first. */
  events(events: EventJson[]): void
  /** The connection stands (again), or frames were left out: what is missing is to be fetched. */
  gap(): void
}

/** Frames are handed on together, at most this often, in milliseconds. */
const BATCH_MS = 120

export const useConnection = defineStore('connection', () => {
  const state = ref<SocketState>('closed')
  const signedOut = ref(false)
  const dropped = ref(0)
  const lastMinute = shallowRef<SummaryJson | null>(null)
  /** The newest frame of what the ledger took in: a sign to read the figures anew. */
  const lastCost = shallowRef<CostFrameJson | null>(null)
  const pulse = new Pulse()
  const listeners = new Set<EventListener>()
  let batch: EventJson[] = []
  let batchTimer: number | null = null
  let socket: StreamSocket | null = null

  function start(): void {
    socket ??= new StreamSocket(streamUrl(window.location), {
      state: (next) => (state.value = next),
      opened: () => listeners.forEach((listener) => listener.gap()),
      frame,
      mayRetry,
    })
    socket.start()
  }

  function frame(next: Frame): void {
    if (next.type === 'event') push([next.data])
    else if (next.type === 'initial') push(next.data)
    else if (next.type === 'analytics') lastMinute.value = next.data
    else if (next.type === 'cost') lastCost.value = next.data
    else if (next.type === 'dropped') noteDropped(next.data)
  }

  function push(events: EventJson[]): void {
    for (const event of events) {
      batch.push(event)
      pulse.note(event.id, event.ts_ms)
    }
    batchTimer ??= window.setTimeout(flush, BATCH_MS)
  }

  function flush(): void {
    batchTimer = null
    const events = batch
    batch = []
    listeners.forEach((listener) => listener.events(events))
  }

  function noteDropped(data: unknown): void {
    const count = typeof data === 'number' ? data : typeof data === 'object' && data !== null && 'count' in data ? Number(data.count) : 1
    dropped.value += Number.isFinite(count) ? count : 1
    listeners.forEach((listener) => listener.gap())
  }

  /** A refused WebSocket does not say why: the session route does. */
  async function mayRetry(): Promise<boolean> {
    try {
      const session = await api.session()
      signedOut.value = !session.signed_in
    } catch (error) {
      signedOut.value = error instanceof ApiError && error.isSignedOut
    }
    return !signedOut.value
  }

  function noteSignedOut(): void {
    signedOut.value = true
    socket?.stop()
  }

  function noteSignedIn(): void {
    signedOut.value = false
    start()
  }

  function listen(listener: EventListener): () => void {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }

  return { state, signedOut, dropped, lastMinute, lastCost, pulse, start, listen, noteSignedOut, noteSignedIn, retryNow: () => socket?.retryNow() }
})
