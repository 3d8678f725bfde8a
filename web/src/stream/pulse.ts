// Events per second over the last minute, counted from the frames that came. They come in no strict order.

export const PULSE_SECONDS = 60

interface Slot {
  second: number
  /** The events of that second: a reconnect sends the newest again, and none is counted twice. */
  ids: Set<number>
}

export class Pulse {
  /** A ring by second. */
  private readonly slots: Slot[] = Array.from({ length: PULSE_SECONDS }, () => ({ second: 0, ids: new Set<number>() }))

  note(id: number, tsMs: number): void {
    const second = Math.floor(tsMs / 1000)
    const slot = this.slots[second % PULSE_SECONDS]
    if (slot === undefined || slot.second > second) return
    if (slot.second !== second) {
      slot.second = second
      slot.ids = new Set()
    }
    slot.ids.add(id)
  }

  /** The last 60 whole seconds up to `now`, oldest first. */
  read(now: number): number[] {
    const last = Math.floor(now / 1000)
    return Array.from({ length: PULSE_SECONDS }, (_, i) => {
      const second = last - PULSE_SECONDS + 1 + i
      const slot = this.slots[second % PULSE_SECONDS]
      return slot !== undefined && slot.second === second ? slot.ids.size : 0
    })
  }
}
