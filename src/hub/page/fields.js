// What is wrong with a field, shown where the field is.

export function clearProblem(form) {
  for (const field of form.querySelectorAll("[data-field]")) clearField(field);
}

export function clearField(field) {
  const error = field?.querySelector(".error");
  if (!error) return;
  error.hidden = true;
  for (const control of controlsOf(field)) control.removeAttribute("aria-invalid");
}

/** Marks the field that a problem names, and takes the reader there. */
export function markProblem(form, name, detail) {
  const field = form.querySelector(`[data-field="${CSS.escape(name)}"]:not([hidden])`);
  const error = field?.querySelector(".error");
  if (!error) return;
  error.textContent = detail;
  error.hidden = false;
  const [control] = controlsOf(field);
  control?.setAttribute("aria-invalid", "true");
  control?.focus();
}

const controlsOf = (field) => field.querySelectorAll("textarea, select, input:not([name=kind])");
