// Work that is asked for more often than it should be done: at once, then one at a time with a pause between, and once more
// for whatever was asked meanwhile. So the last one always begins after the last asking.

export interface Paced {
  (): void
  stop(): void
}

export function paced(work: () => Promise<unknown>, gapMs: number): Paced {
  let timer: number | null = null
  let busy = false
  let again = false
  let stopped = false

  function ask(): void {
    if (stopped) return
    if (busy) again = true
    else void begin()
  }

  async function begin(): Promise<void> {
    busy = true
    again = false
    await work().catch(() => undefined)
    if (stopped) return
    timer = window.setTimeout(() => {
      timer = null
      busy = false
      if (again) void begin()
    }, gapMs)
  }

  ask.stop = () => {
    stopped = true
    if (timer !== null) window.clearTimeout(timer)
  }
  return ask
}
