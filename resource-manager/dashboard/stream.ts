// Server-sent events over fetch: an EventSource cannot send a key.

export class Refused extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/** Yields each event's name and data until the stream ends. Throws Refused when it is not given. */
export async function* events(
  url: string,
  key: string | null,
): AsyncGenerator<{ name: string; data: unknown }> {
  const headers = key === null ? {} : { authorization: `Bearer ${key}` }
  const response = await fetch(url, { headers, cache: 'no-store' })
  if (!response.ok || response.body === null) {
    const body = (await response.json().catch(() => ({}))) as { error?: { message?: string } }
    throw new Refused(response.status, body.error?.message ?? response.statusText)
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    text += value
    const blocks = text.split('\n\n')
    text = blocks.pop() ?? ''
    for (const block of blocks) {
      const name = /^event: (.*)$/m.exec(block)?.[1]
      const data = /^data: (.*)$/m.exec(block)?.[1]
      // The rest are comments that keep the connection alive.
      if (name !== undefined && data !== undefined)
        yield { name, data: JSON.parse(data) as unknown }
    }
  }
}
