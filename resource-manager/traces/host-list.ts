// Slurm's short form of many names: n[1-3,07-09],login1 and r[0-1]n[0-3].

/** Undefined: it is none, or one of more than `most` names. */
export function expandHostList(text: string, most: number): string[] | undefined {
  const names: string[] = []
  for (const item of splitOutsideBrackets(text)) {
    let begins = ['']
    for (const piece of item.split(/(\[[^[\]]*\])/)) {
      const ends = piece.startsWith('[') ? numbersIn(piece.slice(1, -1), most) : [piece]
      if (ends === undefined || begins.length * ends.length > most) return undefined
      begins = begins.flatMap((begin) => ends.map((end) => begin + end))
    }
    for (const name of begins) {
      if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) return undefined
      names.push(name)
    }
    if (names.length > most) return undefined
  }
  return names
}

function splitOutsideBrackets(text: string): string[] {
  return text.split(/,(?![^[\]]*\])/)
}

/** 1-3,07: numbers keep their zeros. */
function numbersIn(text: string, most: number): string[] | undefined {
  const numbers: string[] = []
  for (const range of text.split(',')) {
    const [, first, last = first] = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(range) ?? []
    if (first === undefined || last === undefined) return undefined
    const count = Number(last) - Number(first) + 1
    if (count < 1 || numbers.length + count > most) return undefined
    for (let i = 0; i < count; i += 1) {
      numbers.push(String(Number(first) + i).padStart(first.length, '0'))
    }
  }
  return numbers
}
