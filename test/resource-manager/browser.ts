// Chromium without a window, driven over the two pipes that it offers for that.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'

/** Undefined: there is none on this machine. */
export const browserProgram = ['chromium', 'google-chrome'].find(
  (name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0,
)

type Answer = Record<string, unknown>

interface Message {
  id?: number
  method?: string
  params?: Answer
  result?: Answer
  error?: { message: string }
}

export class Browser {
  readonly #child: ChildProcess
  readonly #folder = mkdtempSync(join(tmpdir(), 'rfaas-browser-'))
  readonly #answers = new Map<number, (message: Message) => void>()
  #sent = 0
  #session: string | undefined
  /** What went wrong on the page: exceptions, refused resources, errors on the console. */
  readonly problems: string[] = []

  constructor() {
    const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe']
    const profile = `--user-data-dir=${this.#folder}`
    this.#child = spawn(browserProgram!, [...flags, '--hide-scrollbars', profile, 'about:blank'], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    })
    let text = ''
    ;(this.#child.stdio[4] as Readable).setEncoding('utf8').on('data', (chunk: string) => {
      const messages = (text + chunk).split('\0')
      text = messages.pop() ?? ''
      for (const message of messages) this.#take(JSON.parse(message) as Message)
    })
  }

  /** A page of this size. */
  async open(url: string, width: number, height: number): Promise<void> {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' })
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true })
    this.#session = sessionId as string
    for (const domain of ['Page', 'Runtime', 'Log']) await this.send(`${domain}.enable`)
    await this.resize(width, height)
    await this.send('Page.navigate', { url })
  }

  async resize(width: number, height: number): Promise<void> {
    const metrics = { width, height, deviceScaleFactor: 1, mobile: false }
    await this.send('Emulation.setDeviceMetricsOverride', metrics)
  }

  async theme(value: 'light' | 'dark'): Promise<void> {
    const features = [{ name: 'prefers-color-scheme', value }]
    await this.send('Emulation.setEmulatedMedia', { features })
  }

  /** The value of an expression on the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = (await this.send('Runtime.evaluate', {
      expression,
      returnByValue: true,
      awaitPromise: true,
    })) as { result: { value: T }; exceptionDetails?: { text: string } }
    if (exceptionDetails !== undefined) throw new Error(`${exceptionDetails.text}: ${expression}`)
    return result.value
  }

  /** What is read of the element. */
  text(selector: string): Promise<string> {
    return this.evaluate(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? ''`)
  }

  async press(key: 'Tab' | 'Enter'): Promise<void> {
    const code = { Tab: 9, Enter: 13 }[key]
    const text = key === 'Enter' ? { text: '\r' } : {}
    for (const type of ['keyDown', 'keyUp']) {
      const pressed = { type, key, code: key, windowsVirtualKeyCode: code, ...text }
      await this.send('Input.dispatchKeyEvent', pressed)
    }
  }

  async type(text: string): Promise<void> {
    await this.send('Input.insertText', { text })
  }

  async picture(): Promise<Buffer> {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png' })
    return Buffer.from(data as string, 'base64')
  }

  send(method: string, params: object = {}): Promise<Answer> {
    const id = (this.#sent += 1)
    const session = /^(Target|Browser)\./.test(method) ? {} : { sessionId: this.#session }
    const pipe = this.#child.stdio[3] as Writable
    pipe.write(`${JSON.stringify({ id, method, params, ...session })}\0`)
    return new Promise((resolve, reject) => {
      this.#answers.set(id, ({ result, error }) => {
        if (error === undefined) resolve(result ?? {})
        else reject(new Error(`${method}: ${error.message}`))
      })
    })
  }

  async close(): Promise<void> {
    const gone = once(this.#child, 'exit')
    await this.send('Browser.close')
    await gone
    rmSync(this.#folder, { recursive: true, force: true })
  }

  #take(message: Message): void {
    if (message.id !== undefined) {
      this.#answers.get(message.id)?.(message)
      this.#answers.delete(message.id)
    } else if (message.method === 'Runtime.exceptionThrown') {
      this.problems.push(JSON.stringify(message.params))
    } else if (message.method === 'Log.entryAdded') {
      const { entry } = message.params as { entry: { level: string; text: string } }
      if (entry.level === 'error') this.problems.push(entry.text)
    }
  }
}
